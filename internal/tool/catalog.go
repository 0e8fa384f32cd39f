package tool

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// entry is a tool with its compiled schemas.
type entry struct {
	spec          Spec
	tool          Tool // nil for a client tool
	input, output *jsonschema.Schema
}

// Catalog is the process's tools by name. It is safe for concurrent use.
type Catalog struct {
	mu      sync.RWMutex
	sources map[string]map[string]*entry
	all     map[string]*entry // replaced as a whole, never changed
	clients map[[sha256.Size]byte]map[string]*entry
}

// own is the source of the tools that NewCatalog is given.
const own = ""

const rememberedClients = 1024 // lists of client tools whose schemas stay compiled

// NewCatalog makes a catalog of the process's own tools.
func NewCatalog(tools ...Tool) (*Catalog, error) {
	c := &Catalog{sources: map[string]map[string]*entry{}, all: map[string]*entry{}, clients: map[[sha256.Size]byte]map[string]*entry{}}
	return c, c.Set(own, tools)
}

// Set replaces the tools of a source, such as an MCP server. When one is not
// valid (Check), or has a name that another source's tool has, nothing changes.
func (c *Catalog) Set(source string, tools []Tool) error {
	fresh := make(map[string]*entry, len(tools))
	for _, t := range tools {
		e, err := newEntry(t.Spec(), t)
		if err != nil {
			return err
		}
		if fresh[e.spec.Name] != nil {
			return fmt.Errorf("tool %s: the name is used twice", e.spec.Name)
		}
		fresh[e.spec.Name] = e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all := maps.Clone(fresh)
	for other, entries := range c.sources {
		if other == source {
			continue
		}
		for name, e := range entries {
			if all[name] != nil {
				return fmt.Errorf("tool %s: another source has a tool of this name", name)
			}
			all[name] = e
		}
	}
	c.sources[source], c.all = fresh, all
	return nil
}

var nameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)

// Check says what keeps a tool from being in a catalog: its name, its kind, its
// boundary, its timeout, or a schema that is too large or not valid.
func Check(s Spec) error {
	_, err := newEntry(s, nil)
	return err
}

func newEntry(s Spec, t Tool) (*entry, error) {
	wrong := func(format string, args ...any) (*entry, error) {
		return nil, fmt.Errorf("tool %s: %w", clip(s.Name, maxName), fmt.Errorf(format, args...))
	}
	switch {
	case !nameForm.MatchString(s.Name) || len(s.Name) > maxName:
		return wrong("a name is a letter and letters, digits, . _ and -, at most %d", maxName)
	case s.Kind != Runtime && s.Kind != MCP && s.Kind != Client:
		return wrong("%q is no kind of a tool", s.Kind)
	case s.Boundary != SafeRetry && s.Boundary != Reconcile:
		return wrong("%q is no settlement boundary", s.Boundary)
	case s.Timeout < time.Millisecond:
		return wrong("it has no timeout")
	case s.Provider == "" || len(s.Provider) > maxProvider:
		return wrong("a provider has 1 to %d characters", maxProvider)
	}
	e := &entry{spec: s, tool: t}
	var err error
	if e.input, err = compile(s.Input); err != nil {
		return wrong("input schema: %w", err)
	}
	if s.Output != nil {
		if e.output, err = compile(s.Output); err != nil {
			return wrong("output schema: %w", err)
		}
	}
	return e, nil
}

// entry finds a tool of the process.
func (c *Catalog) entry(name string) *entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.all[name]
}

// CheckClientTools says what keeps a run from having client tools ([]
// api.ClientTool): one that is not valid, two of one name, or the name of a tool
// of the process.
func (c *Catalog) CheckClientTools(clientTools json.RawMessage) error {
	entries, err := c.client(clientTools)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if c.entry(name) != nil {
			return fmt.Errorf("tool %s: there is a tool of this name; choose another", name)
		}
	}
	return nil
}

// For is the catalog as a run sees it: with its client tools, which were checked
// when it was started. Should the process have got a tool of the same name since,
// the run keeps its own.
func (c *Catalog) For(clientTools json.RawMessage) (View, error) {
	entries, err := c.client(clientTools)
	if err != nil {
		return View{}, err
	}
	c.mu.RLock()
	all := c.all
	c.mu.RUnlock()
	if len(entries) > 0 {
		all = maps.Clone(all)
		maps.Copy(all, entries)
	}
	return newView(all), nil
}

// client reads and compiles a run's client tools, once for every such list.
func (c *Catalog) client(raw json.RawMessage) (map[string]*entry, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	key := sha256.Sum256(raw)
	c.mu.RLock()
	known := c.clients[key]
	c.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	var declared []api.ClientTool
	if err := json.Unmarshal(raw, &declared); err != nil {
		return nil, fmt.Errorf("client tools: %w", err)
	}
	entries := make(map[string]*entry, len(declared))
	for _, d := range declared {
		s, err := clientSpec(d)
		if err != nil {
			return nil, err
		}
		e, err := newEntry(s, nil)
		if err != nil {
			return nil, err
		}
		if entries[s.Name] != nil {
			return nil, fmt.Errorf("tool %s: the name is used twice", s.Name)
		}
		entries[s.Name] = e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.clients) >= rememberedClients {
		clear(c.clients)
	}
	c.clients[key] = entries
	return entries, nil
}

// clientProvider is who carries client tools out.
const clientProvider = "client"

const clientTimeout = 24 * time.Hour

func clientSpec(d api.ClientTool) (Spec, error) {
	s := Spec{
		Name: d.Name, Description: d.Description, Kind: Client, Provider: clientProvider, Groups: []string{"client"},
		Boundary: SafeRetry, Timeout: clientTimeout,
	}
	if d.TimeoutMs != nil {
		s.Timeout = time.Duration(*d.TimeoutMs) * time.Millisecond
	}
	if d.RequiresApproval != nil {
		s.NeedsApproval = *d.RequiresApproval
	}
	var err error
	if s.Input, err = canon.Marshal(d.InputSchema); err != nil {
		return s, fmt.Errorf("tool %s: input schema: %w", clip(d.Name, maxName), err)
	}
	if d.OutputSchema != nil {
		if s.Output, err = canon.Marshal(d.OutputSchema); err != nil {
			return s, fmt.Errorf("tool %s: output schema: %w", clip(d.Name, maxName), err)
		}
	}
	return s, nil
}
