package mcp

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/textproto"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// Server is a server as the file of servers says it; servers.v1.json in this
// folder is its schema, docs/mcp.md its description.
type Server struct {
	Name             string           `json:"name"`
	Prefix           string           `json:"prefix"`
	Stdio            *Stdio           `json:"stdio"`
	HTTP             *HTTP            `json:"http"`
	ProtocolVersion  string           `json:"protocol_version"`
	TimeoutMS        int64            `json:"timeout_ms"`
	ConnectMS        int64            `json:"connect_timeout_ms"`
	QuestionMS       int64            `json:"question_timeout_ms"`
	Parallel         int              `json:"parallel"`
	MaxTools         int              `json:"max_tools"`
	MaxMessage       int              `json:"max_message_bytes"`
	MaxOutput        int              `json:"max_output_bytes"`
	Allow            []string         `json:"allow"`
	Deny             []string         `json:"deny"`
	Groups           []string         `json:"groups"`
	TrustAnnotations bool             `json:"trust_annotations"`
	Tools            map[string]Rules `json:"tools"`
}

// Stdio is a server that this process starts as its child.
type Stdio struct {
	Command string           `json:"command"`
	Args    []string         `json:"args"`
	Env     map[string]Value `json:"env"`
	Dir     string           `json:"dir"`
}

// HTTP is a server at an address.
type HTTP struct {
	URL     string           `json:"url"`
	Headers map[string]Value `json:"headers"`
}

// Value is a text, or names a secret that stands in its place.
type Value struct {
	Text   string
	Secret string
	Before string
}

// UnmarshalJSON reads a string, or an object with secret and before.
func (v *Value) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '"' {
		return json.Unmarshal(raw, &v.Text)
	}
	var o struct{ Secret, Before string }
	err := json.Unmarshal(raw, &o)
	v.Secret, v.Before = o.Secret, o.Before
	return err
}

// Rules are what the file says of one tool; what is nil or zero, the server's
// defaults say.
type Rules struct {
	Writes    *bool         `json:"writes"`
	Approval  *bool         `json:"approval"`
	Boundary  tool.Boundary `json:"boundary"`
	TimeoutMS int64         `json:"timeout_ms"`
	Parallel  int           `json:"parallel"`
	MaxOutput int           `json:"max_output_bytes"`
	Pin       string        `json:"pin"`
}

// Provider is the server's name among providers.
func (s Server) Provider() string { return "mcp:" + s.Name }

func (s Server) timeout(r Rules) time.Duration {
	return time.Duration(cmp.Or(r.TimeoutMS, s.TimeoutMS, 60_000)) * time.Millisecond
}

// Longest is the longest time that an attempt at one of its calls may take.
func (s Server) Longest() time.Duration {
	longest := s.timeout(Rules{})
	for _, r := range s.Tools {
		longest = max(longest, s.timeout(r))
	}
	return longest
}

func (s Server) connect() time.Duration {
	return time.Duration(cmp.Or(s.ConnectMS, 20_000)) * time.Millisecond
}

// question is how long a person has for a question in the middle of a call.
func (s Server) question() time.Duration {
	return time.Duration(cmp.Or(s.QuestionMS, 600_000)) * time.Millisecond
}

func (s Server) maxTools() int   { return cmp.Or(s.MaxTools, 128) }
func (s Server) maxMessage() int { return cmp.Or(s.MaxMessage, 8<<20) }

// takes says whether a tool is wanted, by the server's own name of it.
func (s Server) takes(name string) bool {
	among := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			ok, err := path.Match(p, name)
			return ok && err == nil
		})
	}
	return !among(s.Deny) && (len(s.Allow) == 0 || among(s.Allow))
}

//go:embed servers.v1.json
var fileSchema []byte

// Load reads the file that RUNTIME_MCP_SERVERS names; an empty path is no server.
func Load(path string) ([]Server, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the MCP servers: %w", err)
	}
	servers, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return servers, nil
}

// Parse reads a file of servers. Its errors say which member to change, and
// repeat no value.
func Parse(raw []byte) ([]Server, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("MCP servers: it is not JSON: %w", err)
	}
	schema, err := compiled()
	if err != nil {
		return nil, err
	}
	if err := schema.Validate(doc); err != nil {
		return nil, fmt.Errorf("MCP servers: %s", misfit(err))
	}
	var file struct{ Servers []Server }
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("MCP servers: %w", err)
	}
	names, prefixes := map[string]bool{}, map[string]bool{}
	for i := range file.Servers {
		s := &file.Servers[i]
		s.Prefix = cmp.Or(s.Prefix, s.Name)
		switch {
		case names[s.Name]:
			return nil, fmt.Errorf("MCP servers: /servers/%d/name: another server is called %s", i, s.Name)
		case prefixes[s.Prefix]:
			return nil, fmt.Errorf("MCP servers: /servers/%d/prefix: another server's tools begin with %s", i, s.Prefix)
		}
		names[s.Name], prefixes[s.Prefix] = true, true
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("MCP servers: /servers/%d (%s): %w", i, s.Name, err)
		}
	}
	return file.Servers, nil
}

var compiled = sync.OnceValues(func() (*jsonschema.Schema, error) {
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(fileSchema))
	if err != nil {
		return nil, fmt.Errorf("MCP servers: the schema: %w", err)
	}
	const at = "https://schemas.openagents.com/runtime/mcp_servers.v1.json"
	c := jsonschema.NewCompiler()
	if err := c.AddResource(at, schema); err != nil {
		return nil, fmt.Errorf("MCP servers: the schema: %w", err)
	}
	return c.Compile(at)
})

// ours are headers that the transport itself sends.
var ours = []string{"Accept", "Content-Type", "Content-Length", "Host", "Connection", "Transfer-Encoding",
	"Mcp-Session-Id", "Mcp-Protocol-Version", "Last-Event-Id", "Accept-Encoding"}

// named are headers whose value is a secret.
var named = []string{"Authorization", "Proxy-Authorization", "Cookie", "X-Api-Key", "Api-Key"}

func (s Server) check() error {
	for list, patterns := range map[string][]string{"allow": s.Allow, "deny": s.Deny} {
		for i, p := range patterns {
			if _, err := path.Match(p, ""); err != nil {
				return fmt.Errorf("%s/%d is no pattern of names", list, i)
			}
		}
	}
	if s.HTTP != nil {
		if redact.Text(s.HTTP.URL) != s.HTTP.URL {
			return errors.New("http/url holds a secret; addresses are logged, so give it in headers")
		}
		seen := map[string]bool{}
		for _, name := range slices.Sorted(maps.Keys(s.HTTP.Headers)) {
			at, header := "http/headers/"+name, textproto.CanonicalMIMEHeaderKey(name)
			switch v := s.HTTP.Headers[name]; {
			case slices.Contains(ours, header):
				return errors.New(at + " is the transport's; leave it out")
			case seen[header]:
				return errors.New(at + " is there twice")
			case v.Secret == "" && slices.Contains(named, header):
				return errors.New(at + ` holds a secret; name it, as {"secret": "…"}`)
			case badHeader(v.Text + v.Before):
				return errors.New(at + " has a character that no header may have")
			}
			seen[header] = true
		}
		for name, v := range s.HTTP.Headers {
			if err := plain("http/headers/"+name, name, v); err != nil {
				return err
			}
		}
	}
	if s.Stdio != nil {
		for name, v := range s.Stdio.Env {
			if err := plain("stdio/env/"+name, name, v); err != nil {
				return err
			}
			if strings.Contains(v.Text+v.Before, "\x00") {
				return errors.New("stdio/env/" + name + " has a NUL")
			}
		}
		for i, a := range s.Stdio.Args {
			if redact.Text(a) != a {
				return fmt.Errorf("stdio/args/%d looks like a secret, and arguments are seen by everybody on the machine; give it in env", i)
			}
		}
	}
	return nil
}

// plain refuses a secret that stands in the file.
func plain(at, name string, v Value) error {
	whole := redact.Map(map[string]any{name: v.Text})
	if kept, _ := whole[name].(string); v.Text != "" && kept != v.Text || redact.Text(v.Before) != v.Before {
		return errors.New(at + ` looks like a secret; name it, as {"secret": "…"}`)
	}
	return nil
}

func badHeader(v string) bool {
	return strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// misfit says where a file does not fit its schema.
func misfit(err error) string {
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return err.Error()
	}
	var places []string
	var gather func(*jsonschema.ValidationError)
	gather = func(e *jsonschema.ValidationError) {
		if what := says(e); what != "" {
			places = append(places, "/"+strings.Join(e.InstanceLocation, "/")+": "+what)
			return
		}
		for _, cause := range e.Causes {
			gather(cause)
		}
	}
	gather(invalid)
	slices.Sort(places)
	places = slices.Compact(places)
	return strings.Join(places[:min(4, len(places))], "; ")
}
