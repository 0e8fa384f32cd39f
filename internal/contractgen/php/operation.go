package php

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

type resultKind int

const (
	resultObject  resultKind = iota // a JSON body
	resultStream                    // server-sent events
	resultHeaders                   // headers, and a text when there is a body
)

// operation is one method of the client.
type operation struct {
	ID, Method, Path string
	Summary, Doc     string
	Scope            string
	Idempotent       bool
	MaxBodyBytes     string

	PathParams  []*parameter
	QueryParams []*parameter
	HeadParams  []*parameter
	Body        *phpType
	BodyNeeded  bool

	Kind   resultKind
	Result *phpType
	Status []int // successes
	Errors []raised

	body, answer *class // of Body; of a Result read from headers
}

type parameter struct {
	Name, Var string
	Type      *phpType
	Required  bool
	Doc       string
}

// raised is what one status of an operation throws.
type raised struct {
	Status  int
	Classes []string
	Doc     string
}

// carried are the headers that CallOptions sets for every operation alike.
var carried = []string{"x-oa-user-id", "x-oa-guest-scope", "traceparent", "tracestate", "x-request-id"}

func (l *loader) operations() error {
	seen := map[string]bool{}
	for _, path := range l.runtime.get("paths").members() {
		for _, m := range path.members() {
			if !slices.Contains([]string{"get", "put", "post", "delete", "patch", "head"}, m.key) {
				continue
			}
			op, err := l.operation(path.key, m.key, m.node)
			if err != nil {
				return err
			}
			if seen[op.ID] {
				return m.fail("operationId %s comes twice", op.ID)
			}
			seen[op.ID] = true
			l.out.Operations = append(l.out.Operations, op)
		}
	}
	return nil
}

func (l *loader) operation(path, method string, n node) (*operation, error) {
	op := &operation{
		ID: n.text("operationId"), Method: strings.ToUpper(method), Path: path,
		Summary: sentence(n.text("summary")), Doc: sentence(n.text("description")),
		Scope: n.text("x-required-scope"), Idempotent: n.yes("x-idempotent"), MaxBodyBytes: n.text("x-max-body-bytes"),
	}
	if op.ID == "" || op.Scope == "" || !n.get("x-idempotent").there() {
		return nil, n.fail("an operation needs operationId, x-required-scope and x-idempotent")
	}
	for _, p := range n.get("parameters").items() {
		if err := l.parameter(op, p); err != nil {
			return nil, err
		}
	}
	if body := n.get("requestBody"); body.there() {
		schema := body.path("content", "application/json", "schema")
		if !schema.there() {
			return nil, body.fail("a request body that is not application/json")
		}
		t, err := l.typeOf(l.runtime, schema, studly(op.ID)+"Body", false)
		if err != nil {
			return nil, err
		}
		if t.kind != kindObject {
			return nil, body.fail("a request body that is not an object")
		}
		op.Body, op.BodyNeeded = t, body.yes("required")
		op.body = l.find(t.fqcn)
	}
	return op, l.responses(op, n.get("responses"))
}

func (l *loader) parameter(op *operation, n node) error {
	target, _, err := deref(l.runtime, n)
	if err != nil {
		return err
	}
	p := &parameter{Name: target.text("name"), Var: variable(target.text("name")), Required: target.yes("required")}
	if p.Type, err = l.typeOf(l.runtime, target.get("schema"), studly(op.ID)+studly(p.Name), false); err != nil {
		return err
	}
	if p.Type.kind > kindBool && p.Type.kind != kindEnum {
		return target.fail("a parameter that is neither a scalar nor an enum")
	}
	p.Doc = joined(sentence(target.text("description")), p.Type.limit)
	switch in := target.text("in"); {
	case in == "path":
		op.PathParams = append(op.PathParams, p)
	case in == "query":
		op.QueryParams = append(op.QueryParams, p)
	case in == "header" && slices.Contains(carried, strings.ToLower(p.Name)):
	case in == "header":
		op.HeadParams = append(op.HeadParams, p)
	default:
		return target.fail("a parameter in %q", in)
	}
	return nil
}

func (l *loader) responses(op *operation, n node) error {
	for _, m := range n.members() {
		status, err := strconv.Atoi(m.key)
		if err != nil {
			return m.fail("a response for %q: give a status", m.key)
		}
		target, _, err := deref(l.runtime, m.node)
		if err != nil {
			return err
		}
		if status >= 300 {
			op.Errors = append(op.Errors, raised{
				Status: status, Classes: l.classesFor(op, status), Doc: sentence(target.text("description")),
			})
			continue
		}
		op.Status = append(op.Status, status)
		if err := l.success(op, status, target); err != nil {
			return err
		}
	}
	if op.Result == nil && op.Kind != resultStream {
		return n.fail("no response tells what %s answers", op.ID)
	}
	return nil
}

func (l *loader) success(op *operation, status int, n node) error {
	content := n.get("content")
	switch {
	case status == 204:
		return nil
	case content.get("text/event-stream").there():
		op.Kind = resultStream
		return nil
	case content.get("application/json").there():
		t, err := l.typeOf(l.runtime, content.path("application/json", "schema"), studly(op.ID)+"Answer", false)
		if err != nil {
			return err
		}
		if t.kind != kindObject || op.Result != nil && op.Result.fqcn != t.fqcn {
			return n.fail("successes of %s that are not one and the same object", op.ID)
		}
		op.Result = t
		return nil
	default:
		op.Kind = resultHeaders
		return l.headers(op, n)
	}
}

// bodyKey stands for the body among the headers of an answer.
const bodyKey = ":body"

// headers makes a class of what a response tells that is not JSON.
func (l *loader) headers(op *operation, n node) error {
	c := &class{
		Namespace: root + `\Model`, Name: studly(op.ID) + "Answer",
		Doc: "What " + op.ID + " answers, read from the response's headers.",
	}
	text := n.get("content").there()
	if text {
		c.Doc = "What " + op.ID + " answers: a text, and the response's headers."
		c.Properties = append(c.Properties, &property{
			Key: bodyKey, Var: "text", Type: &phpType{kind: kindString}, Required: true, Doc: "The body.",
		})
	}
	for _, h := range n.get("headers").members() {
		if slices.Contains(carried, strings.ToLower(h.key)) {
			continue // ResponseInfo has them for every operation
		}
		target, _, err := deref(l.runtime, h.node)
		if err != nil {
			return err
		}
		t, err := l.typeOf(l.runtime, target.get("schema"), c.Name+studly(h.key), false)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(h.key), "x-"), "oa-")
		c.Properties = append(c.Properties, &property{
			Key: strings.ToLower(h.key), Var: variable(name), Type: t, Required: !text || target.yes("required"),
			Doc: joined(sentence(target.text("description")), t.limit),
		})
	}
	l.out.Classes = append(l.out.Classes, c)
	op.answer = c
	op.Result = &phpType{kind: kindObject, fqcn: c.FQCN()}
	return nil
}

// classesFor tells which exceptions a status of an operation can be. A 404 of a
// path with a run id is run_not_found: other codes name what the path has not.
func (l *loader) classesFor(op *operation, status int) []string {
	var all, near []string
	for _, c := range l.out.Codes {
		if c.Status != status {
			continue
		}
		all = append(all, c.Class)
		for _, noun := range op.Nouns() {
			if strings.HasPrefix(c.Code, noun+"_") && !slices.Contains(near, c.Class) {
				near = append(near, c.Class)
			}
		}
	}
	if status == 404 && len(near) > 0 {
		return near
	}
	return all
}

// Nouns are what the path's parameters and the collections before them name:
// runId gives run, reservations/{runId} reservation.
func (op *operation) Nouns() []string {
	var all []string
	for _, p := range op.PathParams {
		all = append(all, strings.ToLower(words(p.Name)[0]))
		before, _, _ := strings.Cut(op.Path, "/{"+p.Name+"}")
		collection := before[strings.LastIndex(before, "/")+1:]
		if singular, plural := strings.CutSuffix(collection, "s"); plural {
			all = append(all, strings.ReplaceAll(singular, "-", "_"))
		}
	}
	return all
}

func (l *loader) find(fqcn string) *class {
	for _, c := range l.out.Classes {
		if c.FQCN() == fqcn {
			return c
		}
	}
	return nil
}

// Parameters is the method's parameter list: what is needed first.
func (op *operation) Parameters() string {
	var needed, optional []string
	for _, p := range op.PathParams {
		needed = append(needed, p.Type.native()+" $"+p.Var)
	}
	if op.Body != nil && op.BodyNeeded {
		needed = append(needed, op.Body.native()+" $body")
	} else if op.Body != nil {
		optional = append(optional, op.Body.optional()+" $body = null")
	}
	for _, p := range slices.Concat(op.QueryParams, op.HeadParams) {
		if p.Required {
			needed = append(needed, p.Type.native()+" $"+p.Var)
		} else {
			optional = append(optional, p.Type.optional()+" $"+p.Var+" = null")
		}
	}
	return strings.Join(slices.Concat(needed, optional, []string{"?CallOptions $options = null"}), ", ")
}

// Arguments are the names of the parameters, as a PHP array.
func (op *operation) Arguments() string {
	var all []string
	add := func(name string) { all = append(all, fmt.Sprintf("'%s' => $%s", name, name)) }
	for _, p := range op.PathParams {
		add(p.Var)
	}
	if op.Body != nil {
		add("body")
	}
	for _, p := range slices.Concat(op.QueryParams, op.HeadParams) {
		add(p.Var)
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// Returns is the method's return type.
func (op *operation) Returns() string {
	if op.Kind == resultStream {
		return "RunStream"
	}
	return op.Result.class()
}

// PathExpression is the PHP expression of the path.
func (op *operation) PathExpression() string {
	var parts []string
	rest := op.Path
	for _, p := range op.PathParams {
		before, after, _ := strings.Cut(rest, "{"+p.Name+"}")
		parts = append(parts, quote(before), fmt.Sprintf("Call::segment($%s, %s)", p.Var, quote(p.Var)))
		rest = after
	}
	if rest != "" {
		parts = append(parts, quote(rest))
	}
	return strings.Join(parts, " . ")
}

// Claim is the PHP expression of a claim that names a run or thread, from the
// path, else from the body; "" when neither names one.
func (op *operation) Claim(name string) string {
	for _, p := range op.PathParams {
		if p.Name == name {
			return "$" + p.Var
		}
	}
	return op.fromBody(name)
}

// Principal is the PHP expression of whom the body names, "" when it cannot.
func (op *operation) Principal() string {
	user, guest := op.fromBody("userId"), op.fromBody("guestScope")
	if user == "" || guest == "" {
		return ""
	}
	return "Principal::of(" + user + ", " + guest + ")"
}

func (op *operation) fromBody(name string) string {
	if op.body != nil {
		for _, p := range op.body.Properties {
			if p.Key == name && op.BodyNeeded {
				return "$body->" + p.Var
			}
		}
	}
	return ""
}

func (op *operation) Streams() bool     { return op.Kind == resultStream }
func (op *operation) FromHeaders() bool { return op.Kind == resultHeaders }

// HeaderTypes is a PHP array from header name to type, of an answer that is
// read from headers.
func (op *operation) HeaderTypes() string {
	var all []string
	for _, p := range op.answer.Properties {
		all = append(all, quote(p.Key)+" => "+quote(p.Type.native()))
	}
	return "[" + strings.Join(all, ", ") + "]"
}
