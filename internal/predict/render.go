package predict

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/model"
)

// render makes a model's messages: the blocks of the prompt as one system
// message, then the input's messages, one for one. An event is shown as a user
// message that says so.
func render(prompt ds.SignatureContractV1PromptIR, input []byte) ([]model.Message, error) {
	var in struct {
		Messages []struct{ Role, Content string }
	}
	if err := json.Unmarshal(input, &in); err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	var blocks []string
	for _, b := range prompt.Blocks {
		blocks = append(blocks, b.Text)
	}
	messages := []model.Message{{Role: model.RoleSystem, Content: strings.Join(blocks, "\n\n")}}
	for _, m := range in.Messages {
		switch m.Role {
		case "assistant":
			messages = append(messages, model.Message{Role: model.RoleAssistant, Content: m.Content})
		case "event":
			messages = append(messages, model.Message{Role: model.RoleUser, Content: "Something happened: " + m.Content})
		default:
			messages = append(messages, model.Message{Role: model.RoleUser, Content: m.Content})
		}
	}
	return messages, nil
}

// promptHash is the digest of a rendered prompt, [{"role","content"}, …].
func promptHash(messages []model.Message) (string, error) {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	prompt := make([]message, len(messages))
	for i, m := range messages {
		prompt[i] = message{string(m.Role), m.Content}
	}
	return canon.HashJSON(prompt)
}

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
