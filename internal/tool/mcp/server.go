package mcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

const (
	firstWait = 500 * time.Millisecond // after a failure; each one more doubles it
	mostWait  = time.Minute
	// settled is how long a session lasts at the least that has not failed.
	settled = time.Minute
)

// server is one configured server: at most one session, which is begun when it is
// needed.
type server struct {
	c   Server
	all *Servers
	log *slog.Logger
	// said is the end of what the newest process of a stdio server wrote to its stderr.
	said lastLines

	mu        sync.Mutex
	session   *session
	dialing   chan struct{} // closed when a beginning has come to an end
	failures  int           // in a row
	notBefore time.Time
	problem   error // why there is no session
	begun     int   // sessions
	listed    time.Time
	stale     bool // the list may have changed
	list      listing
}

// open is the server's session, begun if there is none. After a failure it
// answers at once that there is none until it is time to try again.
func (s *server) open(ctx context.Context) (*session, *tool.Error) {
	for {
		s.mu.Lock()
		switch sess := s.session; {
		case sess != nil && sess.ctx.Err() == nil:
			s.mu.Unlock()
			return sess, nil
		case sess != nil: // its end is being seen to
			s.mu.Unlock()
			s.ended(sess)
			continue
		case s.all.ctx.Err() != nil:
			s.mu.Unlock()
			return nil, &tool.Error{Class: Unavailable, Message: "The service is stopping.", Retryable: true}
		case s.dialing == nil && time.Now().Before(s.notBefore):
			e := s.unavailable()
			s.mu.Unlock()
			return nil, e
		case s.dialing == nil:
			s.dialing = make(chan struct{})
			s.all.work.Go(s.begin)
		}
		dialing := s.dialing
		s.mu.Unlock()
		select {
		case <-dialing:
		case <-ctx.Done():
			return nil, &tool.Error{Class: Unavailable, Message: "The server " + s.c.Name + " was not connected in time.", Retryable: true, ProviderFault: true}
		}
		s.mu.Lock()
		if s.session == nil && s.problem != nil {
			e := s.unavailable()
			s.mu.Unlock()
			return nil, e
		}
		s.mu.Unlock()
	}
}

// unavailable says why there is no session.
func (s *server) unavailable() *tool.Error {
	return &tool.Error{
		Class: Unavailable, Retryable: true, ProviderFault: true, RetryAfter: max(0, time.Until(s.notBefore)),
		Message: fmt.Sprintf("The server %s is not connected: %s.", s.c.Name, s.why()),
	}
}

func (s *server) why() string {
	if s.problem == nil {
		return ""
	}
	return plainly(s.problem)
}

// plainly is an error without the addresses that libraries put around it.
func plainly(err error) string {
	var refusal *egress.Refusal
	var broken *egress.Failure
	text := err.Error()
	if errors.As(err, &refusal) {
		text = refusal.Message
	} else if errors.As(err, &broken) {
		text = broken.Message
	}
	return clean(redact.Text(text), 300, false)
}

// begin begins a session for all who wait for it, whoever of them gives up.
func (s *server) begin() {
	ctx, stop := context.WithTimeout(s.all.ctx, s.c.connect())
	defer stop()
	sess, err := s.dial(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.dialing)
	s.dialing = nil
	if err != nil {
		s.failed(err)
		return
	}
	s.session, s.problem, s.stale = sess, nil, true
	s.begun++
	if s.all.ctx.Err() != nil {
		sess.stop(errShut) // Close has been here
	}
	protocol := ""
	if r := sess.conn.InitializeResult(); r != nil {
		protocol = r.ProtocolVersion
	}
	s.log.Info("an MCP server is connected", "protocol_version", protocol, "sessions", s.begun)
	s.all.work.Go(func() {
		sess.watch()
		s.ended(sess)
	})
	s.all.ring()
}

// failed notes a failure; s is locked.
func (s *server) failed(err error) {
	s.failures++
	wait := min(mostWait, firstWait<<min(s.failures-1, 10))
	wait = wait*4/5 + rand.N(wait*2/5)
	s.problem, s.notBefore = err, time.Now().Add(wait)
	if !errors.Is(err, errShut) && s.all.ctx.Err() == nil {
		s.log.Warn("an MCP server is not connected", "error", s.why(), "failures", s.failures, "retry_in_ms", wait.Milliseconds())
	}
}

// ended notes the end of a session.
func (s *server) ended(sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != sess {
		return
	}
	s.session, s.stale = nil, true
	cause := context.Cause(sess.ctx)
	if errors.Is(cause, mcp.ErrSessionMissing) {
		s.problem = nil // the server forgot it, and takes another
		return
	}
	if time.Since(sess.began) > settled {
		s.failures = 0
	}
	s.failed(cause)
}

// drop takes a session that is of no use any more out of use at once.
func (s *server) drop(sess *session, why error) {
	sess.stop(why)
	s.ended(sess)
}

// worked notes that the server did what was asked.
func (s *server) worked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = 0
}

// outdated notes that the server's list of tools has changed.
func (s *server) outdated() {
	s.mu.Lock()
	s.stale = true
	s.mu.Unlock()
	s.all.ring()
}

// due says whether the list is to be read.
func (s *server) due(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.notBefore) {
		return false
	}
	return s.listed.IsZero() || s.stale && now.Sub(s.listed) > s.all.c.Settle || now.Sub(s.listed) > s.all.c.Refresh
}

// refresh reads the list of tools and says whether it has changed.
func (s *server) refresh(ctx context.Context) (changed bool, err error) {
	sess, unavailable := s.open(ctx) // which is bounded for all who wait
	if unavailable != nil {
		return false, fmt.Errorf("MCP server %s: %w", s.c.Name, unavailable)
	}
	ctx, stop := context.WithTimeout(ctx, s.c.connect())
	defer stop()
	s.mu.Lock()
	s.stale = false // what changes from here on is another change
	s.mu.Unlock()
	ctx, stop = sess.bound(ctx)
	defer stop()
	list, err := sess.list(ctx)
	if err != nil {
		if ctx.Err() != nil {
			sess.stop(errHung)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stale = true
		s.failed(err)
		return false, fmt.Errorf("MCP server %s: %s", s.c.Name, s.why())
	}
	l := s.sort(list)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed, s.problem, changed = time.Now(), nil, l.digest != s.list.digest
	if !changed {
		return false, nil
	}
	s.list = l
	s.log.Info("an MCP server's tools", "taken", len(l.taken), "refused", len(l.refused), "ignored", l.ignored)
	for _, r := range l.refused[:min(len(l.refused), 20)] {
		s.log.Warn("a tool of an MCP server is refused", "tool", r.Name, "why", r.Why)
	}
	for _, t := range l.taken {
		if t.Note != "" {
			s.log.Warn("a tool of an MCP server is taken in part", "tool", t.Name, "note", t.Note)
		}
	}
	return true, nil
}

// bound is ctx that ends with the session too.
func (sess *session) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	detach := context.AfterFunc(sess.ctx, func() { cancel(context.Cause(sess.ctx)) })
	return ctx, func() {
		detach()
		cancel(nil)
	}
}
