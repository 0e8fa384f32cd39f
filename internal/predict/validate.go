package predict

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
)

// schemas holds each signature's input schema, compiled once.
var schemas sync.Map // input schema hash -> *jsonschema.Schema

func validate(sig ds.Contract, input []byte) error {
	compiled, ok := schemas.Load(sig.InputSchemaHash)
	if !ok {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(sig.InputSchema))
		if err != nil {
			return err
		}
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft2020)
		const name = "mem:///input.json"
		if err := c.AddResource(name, doc); err != nil {
			return err
		}
		schema, err := c.Compile(name)
		if err != nil {
			return err
		}
		compiled, _ = schemas.LoadOrStore(sig.InputSchemaHash, schema)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(input))
	if err != nil {
		return err
	}
	err = compiled.(*jsonschema.Schema).Validate(value)
	var invalid *jsonschema.ValidationError
	if errors.As(err, &invalid) {
		// The error's own text quotes the input; where it is wrong is enough.
		return fmt.Errorf("does not fit the schema at /%s", strings.Join(invalid.InstanceLocation, "/"))
	}
	return err
}
