package check

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

const (
	exampleRemedy = "add an example under examples, with a summary and a value"
	fitRemedy     = "correct the example, or the schema if the example is right"
)

// Examples wants an example of every request body and every JSON success, an
// error response per operation, and every example to fit its schema.
func Examples(c Contract) ([]Finding, error) {
	v, err := newValidator(c.Bundles.Runtime)
	if err != nil {
		return nil, err
	}
	e := &exampler{collector{check: "examples"}, c, v, map[string]*yaml.Node{}}
	for _, op := range operations(c.OpenAPI.Node) {
		e.lines(op)
	}
	for _, op := range operations(v.doc) {
		if err := e.operation(op); err != nil {
			return nil, err
		}
	}
	return e.found, nil
}

type exampler struct {
	collector
	c     Contract
	v     *validator
	place map[string]*yaml.Node // operationId to its key in openapi.yaml
}

func (e *exampler) lines(op operation) { e.place[op.id()] = op.Key }

func (e *exampler) operation(op operation) error {
	at := e.place[op.id()]
	base := "/paths/" + token(op.Path) + "/" + op.Method
	if body := bundle.Get(op.Node, "requestBody"); body != nil {
		n, where := e.local(body, base+"/requestBody")
		if err := e.content(op.id()+" request body", at, n, where, true); err != nil {
			return err
		}
	}
	errorsDeclared, successes := 0, 0
	var failure error
	each(bundle.Get(op.Node, "responses"), func(status, r *yaml.Node) {
		n, where := e.local(r, base+"/responses/"+token(status.Value))
		success := strings.HasPrefix(status.Value, "2")
		if success {
			successes++
		} else {
			errorsDeclared++
		}
		if err := e.content(op.id()+" response "+status.Value, at, n, where, success || op.Method != "head"); err != nil {
			failure = err
		}
	})
	if errorsDeclared == 0 {
		e.add(e.c.OpenAPI, at, "operation %s declares no error response", "declare each error that it can answer, by reference to components/responses", op.id())
	}
	if successes == 0 {
		e.add(e.c.OpenAPI, at, "operation %s declares no success", "declare the 2xx response with its schema and an example", op.id())
	}
	return failure
}

// local follows a reference within the bundle and answers the target's pointer.
func (e *exampler) local(n *yaml.Node, pointer string) (*yaml.Node, string) {
	ref, found := strings.CutPrefix(bundle.Str(n, "$ref"), "#")
	if !found {
		return n, pointer
	}
	at := e.v.doc
	where := ""
	for _, step := range strings.Split(strings.TrimPrefix(ref, "/"), "/") {
		at, where = bundle.Get(at, step), where+"/"+token(step)
	}
	return at, where
}

// content checks every media type of a body or response.
func (e *exampler) content(what string, at, n *yaml.Node, pointer string, needed bool) error {
	var failure error
	each(bundle.Get(n, "content"), func(kind, media *yaml.Node) {
		given := e.examples(media)
		if len(given) == 0 && needed {
			e.add(e.c.OpenAPI, at, "%s has no %s example", exampleRemedy, what, kind.Value)
		}
		for _, x := range given {
			value, err := plainJSON(bundle.Value(x.value))
			if err != nil {
				failure = err
				return
			}
			wrong, err := e.v.validate(pointer+"/content/"+token(kind.Value)+"/schema", value)
			if err != nil {
				failure = err
				return
			}
			if wrong != "" {
				e.add(e.c.OpenAPI, at, "%s: example %s does not fit its schema: %s", fitRemedy, what, x.name, wrong)
			}
		}
	})
	return failure
}

type example struct {
	name  string
	value *yaml.Node
}

func (e *exampler) examples(media *yaml.Node) []example {
	var all []example
	if v := bundle.Get(media, "example"); v != nil {
		all = append(all, example{"example", v})
	}
	each(bundle.Get(media, "examples"), func(name, x *yaml.Node) {
		x, _ = e.local(x, "")
		if v := bundle.Get(x, "value"); v != nil {
			all = append(all, example{name.Value, v})
		}
	})
	return all
}
