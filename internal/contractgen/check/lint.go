package check

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

var (
	camelCase = regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`)
	pathParam = regexp.MustCompile(`\{([^}]+)\}`)
	scopes    = []string{"service", "operator", "read"}
)

// Lint checks the documents' form: what OpenAPI asks for, and the house rules.
func Lint(ctx context.Context, c Contract) []Finding {
	l := &linter{collector: collector{check: "lint"}, c: c}
	l.valid(ctx, c.OpenAPI, c.Bundles.Runtime)
	l.valid(ctx, c.Events, c.Bundles.Events)
	l.operations()
	l.components()
	l.schemaFiles()
	l.unused()
	return l.found
}

type linter struct {
	collector
	c Contract
}

// valid asks kin-openapi, which knows the rules of OpenAPI 3.1 itself.
func (l *linter) valid(ctx context.Context, f *bundle.File, doc []byte) {
	loader := openapi3.NewLoader()
	parsed, err := loader.LoadFromData(doc)
	if err == nil {
		err = parsed.Validate(ctx, openapi3.DisableExamplesValidation(), openapi3.AllowExtraSiblingFields("description", "x-go-type-name"))
	}
	if err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n")
		l.add(f, nil, "not a valid OpenAPI document: %s", "correct the document as OpenAPI 3.1 asks", text)
	}
}

func (l *linter) operations() {
	f := l.c.OpenAPI
	declared := map[string]bool{}
	if tags := bundle.Get(f.Node, "tags"); tags != nil {
		for _, t := range tags.Content {
			declared[bundle.Str(t, "name")] = true
			if bundle.Str(t, "description") == "" {
				l.add(f, t, "tag %s has no description", "say in one sentence what the tag's operations are about", bundle.Str(t, "name"))
			}
		}
	}
	seen := map[string]bool{}
	for _, op := range operations(f.Node) {
		id := bundle.Str(op.Node, "operationId")
		switch {
		case !camelCase.MatchString(id):
			l.add(f, op.Key, "%s %s: operationId %q is not camelCase", "give it an operationId such as startRun", strings.ToUpper(op.Method), op.Path, id)
		case seen[id]:
			l.add(f, op.Key, "operationId %s is used twice", "give each operation its own operationId", id)
		}
		seen[id] = true
		for _, key := range []string{"summary", "description"} {
			if bundle.Str(op.Node, key) == "" {
				l.add(f, op.Key, "operation %s has no %s", "write it for the caller: what the operation does and what its answers mean", op.id(), key)
			}
		}
		l.tags(op, declared)
		l.security(op)
		l.parameters(op)
		l.body(op)
		l.responses(op)
	}
}

func (l *linter) tags(op operation, declared map[string]bool) {
	tags := bundle.Get(op.Node, "tags")
	if tags == nil || len(tags.Content) == 0 {
		l.add(l.c.OpenAPI, op.Key, "operation %s has no tag", "give it one of the document's tags", op.id())
		return
	}
	for _, t := range tags.Content {
		if !declared[t.Value] {
			l.add(l.c.OpenAPI, t, "operation %s: tag %s is not declared", "declare the tag at the top of the document, with a description", op.id(), t.Value)
		}
	}
}

func (l *linter) security(op operation) {
	f := l.c.OpenAPI
	sec := bundle.Get(op.Node, "security")
	if sec == nil {
		sec = bundle.Get(f.Node, "security")
	}
	if sec == nil || len(sec.Content) == 0 {
		l.add(f, op.Key, "operation %s has no security", "name a security scheme on the operation or on the document", op.id())
	}
	if s := bundle.Str(op.Node, "x-required-scope"); !slices.Contains(scopes, s) {
		l.add(f, op.Key, "operation %s: x-required-scope is %q", "state x-required-scope: "+strings.Join(scopes, ", "), op.id(), s)
	}
	if b := bundle.Get(op.Node, "x-idempotent"); b == nil || b.ShortTag() != "!!bool" {
		l.add(f, op.Key, "operation %s does not say x-idempotent", "state x-idempotent: true when sending the request again is safe, otherwise false; clients retry by it", op.id())
	}
}

func (l *linter) parameters(op operation) {
	f := l.c.OpenAPI
	inPath := map[string]bool{}
	for _, holder := range []*yaml.Node{op.Item, op.Node} {
		params := bundle.Get(holder, "parameters")
		if params == nil {
			continue
		}
		for _, p := range params.Content {
			if _, p = l.c.Follow(f, p); p != nil {
				l.parameter(p)
				if bundle.Str(p, "in") == "path" {
					inPath[bundle.Str(p, "name")] = true
				}
			}
		}
	}
	for _, m := range pathParam.FindAllStringSubmatch(op.Path, -1) {
		if !inPath[m[1]] {
			l.add(f, op.Key, "operation %s: path parameter {%s} is not declared", "add the parameter with in: path", op.id(), m[1])
		}
	}
}

func (l *linter) parameter(p *yaml.Node) {
	if bundle.Str(p, "description") == "" {
		l.add(l.c.OpenAPI, p, "parameter %s has no description", "say in one sentence what the parameter does", bundle.Str(p, "name"))
	}
	l.schema(l.c.OpenAPI, bundle.Get(p, "schema"), "parameter "+bundle.Str(p, "name"), place{})
}

func (l *linter) body(op operation) {
	f := l.c.OpenAPI
	body := bundle.Get(op.Node, "requestBody")
	if body == nil {
		return
	}
	if n := bundle.Get(op.Node, "x-max-body-bytes"); n == nil || n.ShortTag() != "!!int" {
		l.add(f, op.Key, "operation %s takes a body and does not say x-max-body-bytes", "state x-max-body-bytes: the largest body in bytes", op.id())
	}
	_, body = l.c.Follow(f, body)
	each(bundle.Get(body, "content"), func(kind, media *yaml.Node) {
		l.closed(f, bundle.Get(media, "schema"), op.id()+" body", map[*yaml.Node]bool{})
		l.schema(f, bundle.Get(media, "schema"), op.id()+" body", place{})
	})
}

// closed wants every object of a request body to say what it does with members that it does not name.
func (l *linter) closed(from *bundle.File, n *yaml.Node, name string, seen map[*yaml.Node]bool) {
	f, s := l.c.Follow(from, n)
	if s == nil || seen[s] {
		return
	}
	seen[s] = true
	more := bundle.Get(s, "additionalProperties")
	props := bundle.Get(s, "properties")
	if bundle.Str(s, "type") == "object" {
		switch {
		case props != nil && (more == nil || more.Value != "false"):
			l.add(f, s, "request object %s takes members it does not name", "add additionalProperties: false, so that a misspelled member is refused", name)
		case props == nil && more == nil:
			l.add(f, s, "request object %s says nothing about its members", "name its properties, or state additionalProperties: true for content of the caller's own", name)
		}
	}
	each(props, func(k, v *yaml.Node) { l.closed(f, v, name+"."+k.Value, seen) })
	l.closed(f, bundle.Get(s, "items"), name+"[]", seen)
	for _, kw := range []string{"oneOf", "anyOf", "allOf"} {
		if list := bundle.Get(s, kw); list != nil {
			for _, branch := range list.Content {
				l.closed(f, branch, name, seen)
			}
		}
	}
}

func (l *linter) responses(op operation) {
	f := l.c.OpenAPI
	each(bundle.Get(op.Node, "responses"), func(status, r *yaml.Node) {
		_, r = l.c.Follow(f, r)
		if r == nil {
			return
		}
		if bundle.Str(r, "description") == "" {
			l.add(f, r, "operation %s: response %s has no description", "say in one sentence when it is answered", op.id(), status.Value)
		}
		if isError(status.Value) {
			l.envelope(op, status, r)
		}
		each(bundle.Get(r, "content"), func(kind, media *yaml.Node) {
			l.schema(f, bundle.Get(media, "schema"), op.id()+" response "+status.Value, place{})
		})
		each(bundle.Get(r, "headers"), func(name, h *yaml.Node) {
			if _, h = l.c.Follow(f, h); h == nil {
				return
			}
			if bundle.Str(h, "description") == "" {
				l.add(f, h, "header %s has no description", "say in one sentence what the header tells", name.Value)
			}
			l.schema(f, bundle.Get(h, "schema"), "header "+name.Value, place{})
		})
	})
	if bundle.Str(op.Node, "deprecated") == "true" {
		l.deprecated(op)
	}
}

func (l *linter) deprecated(op operation) {
	each(bundle.Get(op.Node, "responses"), func(status, r *yaml.Node) {
		_, r = l.c.Follow(l.c.OpenAPI, r)
		if strings.HasPrefix(status.Value, "2") && bundle.Get(bundle.Get(r, "headers"), "deprecation") == nil {
			l.add(l.c.OpenAPI, status, "operation %s is deprecated and its response %s has no deprecation header",
				"declare the header deprecation on each success of a deprecated operation", op.id(), status.Value)
		}
	})
}

// EnvelopeRef is the one shape of every error.
const EnvelopeRef = "#/components/schemas/ErrorEnvelope"

func isError(status string) bool {
	return strings.HasPrefix(status, "4") || strings.HasPrefix(status, "5") || status == "default"
}

func (l *linter) envelope(op operation, status, r *yaml.Node) {
	content := bundle.Get(r, "content")
	ref := bundle.Str(bundle.Get(bundle.Get(content, "application/json"), "schema"), "$ref")
	if ref != EnvelopeRef || len(content.Content) != 2 {
		l.add(l.c.OpenAPI, r, "operation %s: response %s is not the error envelope", "answer application/json with $ref: '"+EnvelopeRef+"' and nothing else", op.id(), status.Value)
	}
}
