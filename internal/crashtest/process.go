package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// process is a running server with its own line to the database.
type process struct {
	*rig.Process
	cmd   *exec.Cmd
	said  *rig.Output
	line  *line
	owner string        // of its leases
	api   string        // http://host:port
	asks  string        // the path by which the provider knows it
	done  chan struct{} // closed when it has ended
	// stopped is when it was first hurt so that it got no processor; zero for never.
	stopped time.Time
}

// callers counts the processes that ask the provider.
var callers atomic.Int64

// launch starts a server and waits until it listens.
func launch(ctx context.Context, w *world, name string, env ...string) (*process, error) {
	l, err := newLine(name, w.db.Address())
	if err != nil {
		return nil, err
	}
	asks := fmt.Sprintf("/%d", callers.Add(1))
	p, err := rig.Launch(ctx, w.binary, name, w.db.URLOf(roleOf(name), l.address()), slices.Concat([]string{
		"RUNTIME_LEASE_TTL=" + w.ttl.String(), "RUNTIME_LOG_LEVEL=info", "DATABASE_MAX_CONNS=8", "GOMAXPROCS=2",
		"MODEL_PROVIDER=openai", "MODEL_BASE_URL=" + w.provider.URL + asks, "MODEL_NAME=scripted",
	}, w.tools.settings(), env)...)
	if err != nil {
		l.close()
		return nil, err
	}
	return &process{Process: p, cmd: p.Cmd, said: p.Said, line: l, owner: p.Owner, api: p.API, asks: asks, done: p.Done}, nil
}

func (p *process) signal(s syscall.Signal) error {
	if s == syscall.SIGSTOP && p.stopped.IsZero() {
		p.stopped = time.Now()
	}
	return p.Signal(s)
}

func (p *process) alive() bool { return p.Alive() }

// end kills the process, stopped or not, and waits.
func (p *process) end() {
	p.End()
	p.line.close()
}
