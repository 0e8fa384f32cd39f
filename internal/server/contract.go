package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
)

// contract checks requests against the document's schemas, compiled once.
type contract struct{ operations map[string]*shape }

// shape is what a request of one operation looks like.
type shape struct {
	parameters []parameter
	query      map[string]bool // names that the query may have
	body       *jsonschema.Schema
	history    bool // whether conversations' pasts are refused by name
}

type parameter struct {
	name, in string
	required bool
	integer  bool
	fallback string // the default, as it would be sent
	schema   *jsonschema.Schema
}

// traceHeaders are never refused; what is not well formed in them was replaced.
var traceHeaders = map[string]bool{"traceparent": true, "tracestate": true, "x-request-id": true}

const documentURL = "contract.json"

// compileContract compiles the schemas of every body and parameter.
func compileContract(document []byte) (*contract, error) {
	var parsed any
	if err := yaml.Unmarshal(document, &parsed); err != nil {
		return nil, fmt.Errorf("read the contract: %w", err)
	}
	raw, err := json.Marshal(parsed)
	if err != nil {
		return nil, fmt.Errorf("read the contract: %w", err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("read the contract: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource(documentURL, doc); err != nil {
		return nil, fmt.Errorf("read the contract: %w", err)
	}
	b := shaper{doc: doc, compiler: compiler}
	c := &contract{operations: map[string]*shape{}}
	for _, op := range api.Operations() {
		s, err := b.shape(op)
		if err != nil {
			return nil, fmt.Errorf("compile the contract of %s: %w", op.ID, err)
		}
		c.operations[op.ID] = s
	}
	return c, nil
}

type shaper struct {
	doc      any
	compiler *jsonschema.Compiler
}

func (b shaper) shape(op api.Operation) (*shape, error) {
	at := "/paths/" + escape(op.Path) + "/" + strings.ToLower(op.Method)
	s := &shape{query: map[string]bool{}, history: op.ID == "appendFrame"}
	if op.MaxBodyBytes > 0 {
		var err error
		if s.body, err = b.compiler.Compile(documentURL + "#" + at + "/requestBody/content/application~1json/schema"); err != nil {
			return nil, err
		}
	}
	listed, _ := b.at(at + "/parameters").([]any)
	for i := range listed {
		p, err := b.parameter(fmt.Sprintf("%s/parameters/%d", at, i))
		if err != nil {
			return nil, err
		}
		if traceHeaders[strings.ToLower(p.name)] {
			continue
		}
		if p.in == "query" {
			s.query[p.name] = true
		}
		s.parameters = append(s.parameters, p)
	}
	return s, nil
}

func (b shaper) parameter(pointer string) (parameter, error) {
	node, pointer := b.follow(pointer)
	p := parameter{}
	p.name, _ = node["name"].(string)
	p.in, _ = node["in"].(string)
	p.required, _ = node["required"].(bool)
	schema, err := b.compiler.Compile(documentURL + "#" + pointer + "/schema")
	if err != nil {
		return p, err
	}
	p.schema = schema
	target, _ := b.follow(pointer + "/schema")
	p.integer = target["type"] == "integer"
	if fallback, given := target["default"]; given {
		p.fallback = fmt.Sprint(fallback)
	}
	return p, nil
}

// follow resolves the object at a pointer through its references.
func (b shaper) follow(pointer string) (map[string]any, string) {
	node, _ := b.at(pointer).(map[string]any)
	if ref, ok := node["$ref"].(string); ok {
		return b.follow(strings.TrimPrefix(ref, "#"))
	}
	return node, pointer
}

func (b shaper) at(pointer string) any {
	node := b.doc
	for _, step := range strings.Split(pointer, "/")[1:] {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		switch n := node.(type) {
		case map[string]any:
			node = n[step]
		case []any:
			var i int
			if _, err := fmt.Sscan(step, &i); err != nil || i >= len(n) {
				return nil
			}
			node = n[i]
		default:
			return nil
		}
	}
	return node
}

func escape(step string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(step) }

// check refuses what does not fit the contract, fills in the query's defaults
// and gives the request its body in canonical form.
func (c *contract) check(r *http.Request, op api.Operation, body []byte) error {
	s := c.operations[op.ID]
	query, err := s.checkQuery(r)
	if err != nil {
		return err
	}
	for _, p := range s.parameters {
		if err := p.check(r, query); err != nil {
			return err
		}
	}
	r.URL.RawQuery = query.Encode()
	canonical, err := s.checkBody(op, body)
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(canonical))
	r.ContentLength = int64(len(canonical))
	return nil
}

func (s *shape) checkQuery(r *http.Request) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fault.New(api.InvalidRequest, "query: must be name=value pairs, joined by & and percent-encoded")
	}
	for name, values := range query {
		if !s.query[name] {
			return nil, fault.New(api.InvalidRequest, "query %s: this operation has no such parameter", shorten(name)).
				With("in", "query").With("parameter", shorten(name))
		}
		if len(values) > 1 {
			return nil, refuseParameter("query", name, "must come once").With("keyword", "maxItems")
		}
	}
	return query, nil
}

// integerForm is how an integer parameter is written: no sign but a minus, no
// leading zeros, no exponent.
var integerForm = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,18})$`)

func (p parameter) check(r *http.Request, query url.Values) error {
	values := p.values(r, query)
	switch {
	case len(values) > 1:
		return refuseParameter(p.in, p.name, "must come once").With("keyword", "maxItems")
	case len(values) == 0 && p.required:
		return refuseParameter(p.in, p.name, "must be sent").With("keyword", "required")
	case len(values) == 0:
		if p.fallback != "" && p.in == "query" {
			query.Set(p.name, p.fallback)
		}
		return nil
	}
	var value any = values[0]
	if p.integer {
		if !integerForm.MatchString(values[0]) {
			return refuseParameter(p.in, p.name, "must be an integer, written in decimal digits").With("keyword", "type")
		}
		value = json.Number(values[0])
	}
	if err := p.schema.Validate(value); err != nil {
		e := explain(err)
		return refuseParameter(p.in, p.name, e.message).With("keyword", e.keyword)
	}
	return nil
}

func (p parameter) values(r *http.Request, query url.Values) []string {
	switch p.in {
	case "path":
		return []string{r.PathValue(p.name)}
	case "query":
		return query[p.name]
	default:
		return r.Header.Values(p.name)
	}
}

// refuseParameter is about a parameter and never quotes its value.
func refuseParameter(in, name, message string) *fault.Error {
	code := api.InvalidRequest
	if name == "cursor" || name == "Last-Event-ID" {
		code = api.InvalidCursor
	}
	return fault.New(code, "%s %s: %s", in, name, message).With("in", in).With("parameter", name)
}

// checkBody returns the canonical form of a body that fits.
func (s *shape) checkBody(op api.Operation, body []byte) ([]byte, error) {
	if s.body == nil || len(body) == 0 && !op.BodyRequired {
		return nil, nil
	}
	if len(body) == 0 {
		return nil, fault.New(api.InvalidRequest, "body: must be sent, as application/json").With("pointer", "").With("keyword", "required")
	}
	canonical, err := canon.JSON(body)
	if err != nil {
		return nil, err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(canonical))
	if err != nil {
		return nil, fault.New(api.InvalidJSON, "the request body is not JSON").Because(err)
	}
	if s.history {
		if err := refuseHistory(value); err != nil {
			return nil, err
		}
	}
	if err := s.body.Validate(value); err != nil {
		e := explain(err)
		place := "body"
		if e.pointer != "" {
			place += " " + e.pointer
		}
		return nil, fault.New(api.InvalidRequest, "%s: %s", place, e.message).With("pointer", e.pointer).With("keyword", e.keyword)
	}
	return canonical, nil
}

// refuseHistory refuses a conversation's past, which the runtime reads from its
// own log: two sources of it would disagree.
func refuseHistory(body any) error {
	request, _ := body.(map[string]any)
	payload, _ := request["payload"].(map[string]any)
	for _, name := range []string{"messages", "contextFrames"} {
		for pointer, object := range map[string]map[string]any{"/" + name: request, "/payload/" + name: payload} {
			if _, sent := object[name]; sent {
				return fault.New(api.HistoryNotAccepted, "body %s: the runtime reads a conversation's past from its own log, "+
					"so that a retry or another client cannot change it; send the latest text alone, as payload.text", pointer).
					With("pointer", pointer)
			}
		}
	}
	return nil
}
