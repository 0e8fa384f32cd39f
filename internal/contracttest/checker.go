package contracttest

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/openapi"
)

// Checker says whether an answer is one that the contract has.
type Checker struct {
	doc      Document
	mu       sync.Mutex
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema
}

const checkerURL = "answers.json"

var loadDocument = sync.OnceValues(func() (*Checker, error) {
	var parsed any
	if err := yaml.Unmarshal(openapi.Runtime, &parsed); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(parsed)
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource(checkerURL, doc); err != nil {
		return nil, err
	}
	return &Checker{doc: Document{doc}, compiler: c, compiled: map[string]*jsonschema.Schema{}}, nil
})

func document(t testing.TB) *Checker {
	t.Helper()
	c, err := loadDocument()
	require.NoError(t, err)
	return c
}

// Document is the bundled contract.
type Document struct{ root any }

// At follows a pointer and every reference on its way, and returns the pointer
// without references.
func (d Document) At(pointer string) (map[string]any, string) {
	at, where := d.root, ""
	for _, step := range strings.Split(pointer, "/")[1:] {
		at, where = d.resolve(at, where)
		key := strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		switch n := at.(type) {
		case map[string]any:
			at = n[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(n) {
				return nil, where
			}
			at = n[i]
		default:
			return nil, where
		}
		where += "/" + step
	}
	at, where = d.resolve(at, where)
	node, _ := at.(map[string]any)
	return node, where
}

func (d Document) resolve(at any, where string) (any, string) {
	if node, ok := at.(map[string]any); ok {
		if ref, ok := node["$ref"].(string); ok {
			target, pointer := d.At(strings.TrimPrefix(ref, "#"))
			return target, pointer
		}
	}
	return at, where
}

func operationPointer(op api.Operation) string {
	return "/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(op.Path) + "/" + strings.ToLower(op.Method)
}

// Check says what is wrong with an answer: a status, header, content type or
// body that the contract does not have, or an error without the envelope.
func (c *Checker) Check(a Answer) error {
	for _, name := range []string{"x-request-id", "traceparent"} {
		if a.Header.Get(name) == "" {
			return fmt.Errorf("the answer has no %s", name)
		}
	}
	if a.Operation == "" {
		return c.checkUnrouted(a)
	}
	ops := api.Operations()
	op := ops[slices.IndexFunc(ops, func(o api.Operation) bool { return o.ID == a.Operation })]
	declared, at := c.doc.At(operationPointer(op) + "/responses/" + strconv.Itoa(a.Status))
	if declared == nil {
		return fmt.Errorf("%s does not declare the status %d", op.ID, a.Status)
	}
	if err := c.checkHeaders(a, declared, at); err != nil {
		return err
	}
	if op.Method == http.MethodHead {
		return empty(a)
	}
	if a.Status >= 400 {
		if err := c.checkEnvelope(a); err != nil {
			return err
		}
		if code := api.ErrorCode(a.Code()); !slices.Contains(op.Errors, code) {
			return fmt.Errorf("%s does not declare the code %s", op.ID, code)
		}
	}
	content, _ := declared["content"].(map[string]any)
	if content == nil {
		return empty(a)
	}
	kind, _, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil || content[kind] == nil {
		return fmt.Errorf("%s does not declare the content type %q for %d", op.ID, a.Header.Get("Content-Type"), a.Status)
	}
	switch kind {
	case "text/event-stream":
		return checkEvents(a)
	case "text/csv":
		return checkTable(a)
	}
	return c.fits(at+"/content/"+strings.ReplaceAll(kind, "/", "~1")+"/schema", a.Body)
}

func empty(a Answer) error {
	if len(a.Body) > 0 {
		return fmt.Errorf("the answer %d has a body", a.Status)
	}
	return nil
}

// checkUnrouted is for requests that no operation takes.
func (c *Checker) checkUnrouted(a Answer) error {
	if a.Status != http.StatusNotFound && a.Status != http.StatusMethodNotAllowed {
		return fmt.Errorf("a request without a route was answered %d", a.Status)
	}
	return c.checkEnvelope(a)
}

func (c *Checker) checkEnvelope(a Answer) error {
	if err := c.fits("/components/schemas/ErrorEnvelope", a.Body); err != nil {
		return fmt.Errorf("no error envelope: %w", err)
	}
	e := a.envelope()
	if status := api.ErrorCode(e.Code).Status(); status != a.Status {
		return fmt.Errorf("the code %s has the status %d, not %d", e.Code, status, a.Status)
	}
	if e.RequestID != a.Header.Get("x-request-id") {
		return errors.New("the envelope's requestId is not the x-request-id")
	}
	if e.Message == "" {
		return errors.New("the envelope has no message")
	}
	return nil
}

func (c *Checker) checkHeaders(a Answer, declared map[string]any, at string) error {
	headers, _ := declared["headers"].(map[string]any)
	for name := range headers {
		values := a.Header.Values(name)
		if len(values) > 1 {
			return fmt.Errorf("the header %s comes %d times", name, len(values))
		}
		if len(values) == 0 {
			continue
		}
		schema, where := c.doc.At(at + "/headers/" + name + "/schema")
		value, err := parseHeader(values[0], schema)
		if err != nil {
			return fmt.Errorf("the header %s: %w", name, err)
		}
		s, err := c.schema(where)
		if err != nil {
			return err
		}
		if err := s.Validate(value); err != nil {
			return fmt.Errorf("the header %s: %w", name, err)
		}
	}
	return nil
}

func parseHeader(text string, schema map[string]any) (any, error) {
	switch schema["type"] {
	case "integer":
		if _, err := strconv.ParseInt(text, 10, 64); err != nil {
			return nil, err
		}
		return json.Number(text), nil
	case "boolean":
		return strconv.ParseBool(text)
	default:
		return text, nil
	}
}

var eventLine = regexp.MustCompile(`^(|:.*|data: .*|id: [0-9]+|retry: [0-9]+)$`)

// checkEvents wants blocks of one data line at most, with the id last.
func checkEvents(a Answer) error {
	text := string(a.Body)
	for _, block := range strings.Split(text, "\n\n") {
		data, id := 0, false
		for line := range strings.SplitSeq(block, "\n") {
			if !eventLine.MatchString(line) {
				return fmt.Errorf("no line of an event: %q", line)
			}
			if id && line != "" {
				return fmt.Errorf("a line follows the id: %q", line)
			}
			if strings.HasPrefix(line, "data: ") {
				data++
				if part := strings.TrimPrefix(line, "data: "); part != "[DONE]" && !json.Valid([]byte(part)) {
					return fmt.Errorf("no JSON: %q", part)
				}
			}
			id = id || strings.HasPrefix(line, "id: ")
		}
		if data > 1 {
			return fmt.Errorf("a block has %d data lines", data)
		}
	}
	return nil
}

// checkTable wants rows of as many cells each, that end as RFC 4180 has it, and no
// cell that a spreadsheet takes for a formula.
func checkTable(a Answer) error {
	rows, err := csv.NewReader(bytes.NewReader(a.Body)).ReadAll()
	switch {
	case err != nil:
		return fmt.Errorf("no table: %w", err)
	case len(a.Body) > 0 && !bytes.HasSuffix(a.Body, []byte("\r\n")):
		return errors.New("the table's last line has no end")
	}
	for _, row := range rows {
		for _, cell := range row {
			if _, err := strconv.ParseInt(cell, 10, 64); err != nil && strings.ContainsAny(cell[:min(1, len(cell))], "=+-@\t\r") {
				return fmt.Errorf("a cell is a formula: %q", cell)
			}
		}
	}
	return nil
}

func (c *Checker) fits(pointer string, body []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("the body is not JSON: %w", err)
	}
	s, err := c.schema(pointer)
	if err != nil {
		return err
	}
	return s.Validate(value)
}

func (c *Checker) schema(pointer string) (*jsonschema.Schema, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.compiled[pointer]; ok {
		return s, nil
	}
	_, where := c.doc.At(pointer)
	s, err := c.compiler.Compile(checkerURL + "#" + where)
	if err != nil {
		return nil, err
	}
	c.compiled[pointer] = s
	return s, nil
}
