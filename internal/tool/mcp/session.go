package mcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

const (
	// noisy is how many messages that answer nothing a server may send in a
	// noiseWindow.
	noisy       = 20_000
	noiseWindow = 10 * time.Second
	// probing is how long a server that let a call time out has to answer at all.
	probing = 5 * time.Second

	maxPages  = 64     // of a list of tools
	maxListed = 10_000 // tools that are looked at
)

var (
	errNoise  = errors.New("the server floods the connection")
	errHung   = errors.New("the server does not answer")
	errGone   = errors.New("the server ended the session")
	errExited = errors.New("the server's process ended")
	errShut   = errors.New("the service is stopping")
)

// session is a connection with a server, from its beginning to its one end.
type session struct {
	server *server
	conn   *mcp.ClientSession
	child  *child // nil for a server at an address
	began  time.Time

	ctx  context.Context // ends with the session; its cause is why
	stop context.CancelCauseFunc

	token   atomic.Int64
	probes  atomic.Bool
	mu      sync.Mutex
	flights map[string]*flight // by progress token
	gaveUp  time.Time          // when a call was last left before its answer
	noise   int
	since   time.Time
}

// flight is a call that the server has not answered.
type flight struct {
	progress  func(*mcp.ProgressNotificationParams)
	ask       func(tool.Question) (tool.Answer, error) // of a person; nil when nobody can be asked
	questions atomic.Int64
	asked     string // what the server wanted to know meanwhile, and nobody answered
}

// dial begins a session. ctx bounds the beginning alone.
func (s *server) dial(ctx context.Context) (*session, error) {
	sess := &session{server: s, began: time.Now(), flights: map[string]*flight{}}
	sess.ctx, sess.stop = context.WithCancelCause(context.Background())
	t, err := sess.transport(ctx)
	if err != nil {
		sess.stop(err)
		return nil, err
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "openagents-runtime", Version: s.all.c.Version}, &mcp.ClientOptions{
		Logger: slog.New(slog.DiscardHandler),
		// No roots and no sampling: those are asked for in vain.
		Capabilities:                &mcp.ClientCapabilities{},
		MultiRoundTrip:              &mcp.MultiRoundTripOptions{Disabled: true},
		ElicitationHandler:          sess.elicited,
		ToolListChangedHandler:      func(context.Context, *mcp.ToolListChangedRequest) { s.outdated() },
		ProgressNotificationHandler: sess.progressed,
	})
	client.AddReceivingMiddleware(sess.counted)
	kept := &keeper{Transport: t}
	sess.conn, err = client.Connect(ctx, kept, &mcp.ClientSessionOptions{ProtocolVersion: s.c.ProtocolVersion})
	if err != nil {
		sess.stop(err)
		if kept.conn != nil {
			_ = kept.conn.Close()
		}
		if sess.child != nil {
			sess.child.end()
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", errHung, err)
		}
		return nil, err
	}
	return sess, nil
}

// keeper remembers the connection, for the client does not close every one that
// came to nothing.
type keeper struct {
	mcp.Transport
	conn mcp.Connection
}

func (k *keeper) Connect(ctx context.Context) (mcp.Connection, error) {
	conn, err := k.Transport.Connect(ctx)
	k.conn = conn
	return conn, err
}

func (sess *session) transport(ctx context.Context) (mcp.Transport, error) {
	s := sess.server
	if h := s.c.HTTP; h != nil {
		if s.all.c.Client == nil {
			return nil, errors.New("there is no client to call it with")
		}
		client, err := s.all.c.Client(s.c)
		if err != nil {
			return nil, err
		}
		own := *client
		own.Transport = wire{next: client.Transport, headers: h.Headers, secret: s.all.c.Secret, limit: int64(s.c.maxMessage())}
		if own.CheckRedirect == nil {
			own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		}
		return &mcp.StreamableClientTransport{Endpoint: h.URL, HTTPClient: &own, MaxRetries: 3, MaxEventSize: s.c.maxMessage()}, nil
	}
	env := make([]string, 0, len(s.c.Stdio.Env))
	for name, v := range s.c.Stdio.Env {
		text, err := v.reveal(ctx, s.all.c.Secret)
		if err != nil {
			return nil, fmt.Errorf("stdio/env/%s: %w", name, err)
		}
		env = append(env, name+"="+text)
	}
	var err error
	s.said.clear()
	if sess.child, err = start(*s.c.Stdio, env, s.log, &s.said); err != nil {
		return nil, err
	}
	return &mcp.IOTransport{Reader: sess.child.stdout, Writer: sess.child, MaxLineLength: s.c.maxMessage()}, nil
}

// watch ends the session when its connection or its process ends.
func (sess *session) watch() {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if err := sess.conn.Wait(); err != nil {
			sess.stop(fmt.Errorf("%w: %w", errGone, err))
		}
	}()
	var exited chan struct{}
	if sess.child != nil {
		exited = sess.child.gone
	}
	select {
	case <-closed:
	case <-exited:
		select { // an answer that it wrote before it ended is one
		case <-closed:
		case <-time.After(parting):
		}
		sess.stop(errExited)
	case <-sess.ctx.Done():
	}
	sess.stop(errGone) // unless there is a better reason
	if sess.child == nil {
		sess.farewell()
	}
	if sess.child != nil {
		sess.child.end() // also when the connection has calls left that will not end
	}
	_ = sess.conn.Close()
	<-closed
}

// parting is how long a session outlives a call that was given up, so that the
// server hears of it: the client tells it beside everything else.
const parting = 250 * time.Millisecond

// farewell waits until calls that were given up have been told of.
func (sess *session) farewell() {
	sess.mu.Lock()
	left := parting - time.Since(sess.gaveUp)
	if len(sess.flights) > 0 {
		left = parting
	}
	sess.mu.Unlock()
	if left > 0 {
		<-time.After(left)
	}
}

// counted ends a session that is flooded.
func (sess *session) counted(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
		sess.mu.Lock()
		if time.Since(sess.since) > noiseWindow {
			sess.since, sess.noise = time.Now(), 0
		}
		sess.noise++
		flooded := sess.noise > noisy
		sess.mu.Unlock()
		if flooded {
			sess.stop(errNoise)
			return nil, errNoise
		}
		return next(ctx, method, req)
	}
}

// begin enters a call and returns its progress token.
func (sess *session) begin(f *flight) string {
	token := "call-" + strconv.FormatInt(sess.token.Add(1), 10)
	sess.mu.Lock()
	defer sess.mu.Unlock()
	sess.flights[token] = f
	return token
}

// over takes a call out and says what the server wanted to know in vain meanwhile.
func (sess *session) over(token string, gaveUp bool) (asked string) {
	sess.mu.Lock()
	defer sess.mu.Unlock()
	if gaveUp {
		sess.gaveUp = time.Now()
	}
	asked = sess.flights[token].asked
	delete(sess.flights, token)
	return asked
}

func (sess *session) progressed(_ context.Context, req *mcp.ProgressNotificationClientRequest) {
	token, _ := req.Params.ProgressToken.(string)
	sess.mu.Lock()
	f := sess.flights[token]
	sess.mu.Unlock()
	if f != nil {
		f.progress(req.Params)
	}
}

// probe ends a session whose server does not answer at all any more.
func (sess *session) probe() {
	if !sess.probes.CompareAndSwap(false, true) {
		return
	}
	s := sess.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != sess { // whoever waits for the work's end may have gone on
		return
	}
	s.all.work.Go(func() {
		defer sess.probes.Store(false)
		ctx, stop := context.WithTimeout(sess.ctx, probing)
		defer stop()
		err := sess.conn.Ping(ctx, nil)
		if err != nil && ctx.Err() != nil { // an error is an answer too
			sess.stop(errHung)
		}
	})
}

// list reads the server's tools.
func (sess *session) list(ctx context.Context) ([]*mcp.Tool, error) {
	var tools []*mcp.Tool
	params := &mcp.ListToolsParams{}
	for range maxPages {
		page, err := sess.conn.ListTools(ctx, params)
		if err != nil {
			return nil, fmt.Errorf("list the tools: %w", err)
		}
		tools = append(tools, page.Tools...)
		if page.NextCursor == "" || page.NextCursor == params.Cursor || len(tools) >= maxListed {
			break
		}
		params = &mcp.ListToolsParams{Cursor: page.NextCursor}
	}
	return tools[:min(len(tools), maxListed)], nil
}
