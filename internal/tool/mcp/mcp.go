// Package mcp asks servers that speak MCP.
//
// docs/mcp.md says how servers are configured and what is made of what they say.
package mcp

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// Config is what Servers need of the process.
type Config struct {
	Servers []Server // of Load
	// Client makes the client for a server at an address; Guarded makes one that
	// may reach that server alone. Nil refuses such servers.
	Client func(Server) (*http.Client, error)
	// Secret gives a secret of the service's configuration by its name. A session
	// serves every run, so no secret of a user is ever asked for.
	Secret func(ctx context.Context, name string) (secret.Value, error)
	// Taken says whether a tool that is not a server's has a name.
	Taken func(name string) bool
	// Changed hears of all the tools there are, each time they have changed, from
	// one goroutine at a time.
	Changed func([]tool.Tool)
	Logger  *slog.Logger
	// Version of this program, which servers are told.
	Version string
	// Refresh is how old a list of tools may become: 5 minutes. Settle is how long
	// a server that says that its list has changed is not asked again: 1 s.
	Refresh, Settle time.Duration
}

// Servers are the configured servers, one session each. They connect when Once or
// a call needs them.
type Servers struct {
	c       Config
	servers []*server
	bell    chan struct{}
	publish sync.Mutex

	ctx  context.Context
	stop context.CancelCauseFunc
	work sync.WaitGroup
}

// New makes servers. Nothing is connected yet.
func New(c Config) *Servers {
	c.Refresh, c.Settle = cmp.Or(c.Refresh, 5*time.Minute), cmp.Or(c.Settle, time.Second)
	c.Logger, c.Version = cmp.Or(c.Logger, slog.Default()), cmp.Or(c.Version, "dev")
	all := &Servers{c: c, bell: make(chan struct{}, 1)}
	all.ctx, all.stop = context.WithCancelCause(context.Background())
	for _, s := range c.Servers {
		all.servers = append(all.servers, &server{c: s, all: all, log: c.Logger.With("mcp_server", s.Name)})
	}
	return all
}

// Tools are all tools that were taken, by name. Those of a server that is not
// connected stay: their calls fail until it is.
func (all *Servers) Tools() []tool.Tool {
	var tools []tool.Tool
	for _, s := range all.servers {
		s.mu.Lock()
		for _, t := range s.list.tools {
			tools = append(tools, t)
		}
		s.mu.Unlock()
	}
	slices.SortFunc(tools, func(a, b tool.Tool) int { return cmp.Compare(a.Spec().Name, b.Spec().Name) })
	return tools
}

// parallelLists is how many servers are asked for their lists at once.
const parallelLists = 8

// Once reads the lists of tools that are due, and tells Changed. It returns how
// many lists have changed; the errors of servers are joined and change nothing
// for the others.
func (all *Servers) Once(ctx context.Context) (int64, error) {
	var (
		g       errgroup.Group
		mu      sync.Mutex
		failed  []error
		changes int64
	)
	g.SetLimit(parallelLists)
	for _, s := range all.servers {
		if !s.due(time.Now()) {
			continue
		}
		g.Go(func() error {
			changed, err := s.refresh(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, err)
			}
			if changed {
				changes++
			}
			return nil
		})
	}
	_ = g.Wait() // the errors are in failed
	if changes > 0 && all.c.Changed != nil {
		all.publish.Lock()
		all.c.Changed(all.Tools())
		all.publish.Unlock()
	}
	return changes, errors.Join(failed...)
}

// Run keeps the lists of tools fresh until ctx ends, then closes the sessions.
func (all *Servers) Run(ctx context.Context) error {
	defer all.Close()
	if len(all.servers) == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		// A server that fails is logged where it fails.
		_, _ = all.Once(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-all.bell:
		}
	}
}

// Close ends all sessions and waits for them, and for the processes of servers.
// Calls that are at work fail.
func (all *Servers) Close() {
	all.stop(errShut)
	for _, s := range all.servers {
		s.mu.Lock()
		if s.session != nil {
			s.session.stop(errShut)
		}
		s.mu.Unlock()
	}
	all.work.Wait()
}

func (all *Servers) ring() {
	select {
	case all.bell <- struct{}{}:
	default:
	}
}

// Status is how a server is doing in this process.
type Status struct {
	Name      string `json:"name"`
	Transport string `json:"transport"`
	Connected bool   `json:"connected"`
	Protocol  string `json:"protocol_version,omitempty"`
	Software  string `json:"software,omitempty"`
	// Sessions counts those that were begun: all but the first are restarts.
	Sessions int    `json:"sessions"`
	Problem  string `json:"problem,omitempty"`
	// Stderr are the last lines that the process of a server with a problem wrote,
	// redacted.
	Stderr  []string  `json:"stderr,omitempty"`
	Tools   []Tool    `json:"tools"`
	Refused []Refused `json:"refused,omitempty"`
	Ignored int       `json:"ignored,omitempty"`
}

// Status is how the servers are doing, in the file's order.
func (all *Servers) Status() []Status {
	list := make([]Status, 0, len(all.servers))
	for _, s := range all.servers {
		s.mu.Lock()
		st := Status{
			Name: s.c.Name, Transport: "http", Connected: s.session != nil, Sessions: s.begun, Problem: s.why(),
			Tools: s.list.taken, Refused: s.list.refused, Ignored: s.list.ignored,
		}
		if s.c.Stdio != nil {
			st.Transport = "stdio"
		}
		if st.Problem != "" {
			st.Stderr = s.said.shown()
		}
		if s.session != nil {
			if r := s.session.conn.InitializeResult(); r != nil {
				st.Protocol = r.ProtocolVersion
				if r.ServerInfo != nil {
					st.Software = clean(r.ServerInfo.Name+" "+r.ServerInfo.Version, 100, false)
				}
			}
		}
		s.mu.Unlock()
		list = append(list, st)
	}
	return list
}
