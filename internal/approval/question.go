package approval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
)

// Question is what a tool wants to know of a person in the middle of a call: the
// member question of what an approval asks. Without a schema it wants a yes or no.
type Question struct {
	Message string          `json:"message"`
	Schema  json.RawMessage `json:"schema,omitempty"` // of an object
}

// questionOf is the question of an approval, if it is about one.
func questionOf(a db.Approval) (q Question, asked bool, err error) {
	var request struct{ Question *Question }
	if err := json.Unmarshal(a.Request, &request); err != nil {
		return q, false, fmt.Errorf("read what an approval asks: %w", err)
	}
	if request.Question == nil {
		return q, false, nil
	}
	return *request.Question, true, nil
}

const empty = "{}" // content with nothing in it

// contentOf is what is stored of what a person filled in: nil when nothing was asked
// for, otherwise an object that satisfies the question's schema. What does not fit is
// invalid_request.
func contentOf(a db.Approval, d Decision) (json.RawMessage, error) {
	q, asked, err := questionOf(a)
	if err != nil {
		return nil, err
	}
	switch given := len(d.Content) > 0 && string(d.Content) != empty; {
	case given && d.State != Approved:
		return nil, fault.New(api.InvalidRequest, "content: it goes with approved, not with %s", d.State)
	case given && (!asked || len(q.Schema) == 0):
		return nil, fault.New(api.InvalidRequest, "content: the approval asks for none; leave it out")
	case d.State != Approved || len(q.Schema) == 0:
		return nil, nil
	case !given:
		d.Content = json.RawMessage(empty)
	}
	content, err := canon.JSON(d.Content)
	if err != nil {
		return nil, fault.New(api.InvalidRequest, "content: it has no canonical form: %v", err)
	}
	// What the server gets is what is stored, so nothing may be taken out of it.
	if !bytes.Equal(redact.JSON(bytes.Clone(content)), content) {
		return nil, fault.New(api.InvalidRequest, "content: it looks like a secret; no server is given one this way")
	}
	return content, fits(q.Schema, content)
}

func fits(schema, content json.RawMessage) error {
	s, err := compileSchema(schema)
	if err != nil {
		return fmt.Errorf("read what an approval asks: %w", err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
	if err != nil {
		return fault.New(api.InvalidRequest, "content: %v", err)
	}
	err = s.Validate(v)
	var misfit *jsonschema.ValidationError
	if errors.As(err, &misfit) {
		return fault.New(api.InvalidRequest, "content: it does not fit the question's schema: %s", strings.Join(misfits(misfit), "; "))
	}
	return err
}

// misfits says where a value does not fit, at most four times.
func misfits(e *jsonschema.ValidationError) (all []string) {
	if len(e.Causes) == 0 {
		return []string{"/" + strings.Join(e.InstanceLocation, "/") + " " + misfit(e.ErrorKind)}
	}
	for _, cause := range e.Causes {
		all = append(all, misfits(cause)...)
	}
	return all[:min(4, len(all))]
}

func misfit(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Required:
		return "lacks " + strings.Join(k.Missing, ", ")
	case *kind.Type:
		return "must be " + strings.Join(k.Want, " or ")
	case *kind.Enum:
		return fmt.Sprintf("must be one of %v", k.Want)
	case *kind.AdditionalProperties:
		return "has members that are not asked for: " + strings.Join(k.Properties, ", ")
	}
	return "does not satisfy " + strings.Join(k.KeywordPath(), "/")
}

// compileSchema reads the schema of a question.
func compileSchema(schema json.RawMessage) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return nil, err
	}
	const at = "question:///schema"
	c := jsonschema.NewCompiler()
	c.UseLoader(jsonschema.SchemeURLLoader{}) // nothing is loaded from anywhere
	if err := c.AddResource(at, doc); err != nil {
		return nil, err
	}
	return c.Compile(at)
}

// sameContent says whether a decision fills in what an approval has.
func sameContent(a db.Approval, d Decision) bool {
	if len(d.Content) == 0 || string(d.Content) == empty && a.DecisionContent == nil {
		return true
	}
	content, err := canon.JSON(d.Content)
	return err == nil && bytes.Equal(content, a.DecisionContent)
}
