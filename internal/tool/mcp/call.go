package mcp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/outbound"
)

// The classes of errors that are not outbound's or the guard's.
const (
	Unavailable   = "server_unavailable" // there is no session; nothing was sent
	Lost          = "server_lost"        // the session ended during the call
	InputRequired = "input_required"     // the server wants to ask a person
	ToolError     = "tool_error"         // the tool says that it failed
)

// idempotency is the member of _meta that names a call: the same for every
// attempt at it.
const idempotency = "com.openagents/idempotency-key"

// remote is a tool of a server.
type remote struct {
	server *server
	name   string // the server's own
	spec   tool.Spec
}

// Spec says what the tool is here.
func (r *remote) Spec() tool.Spec { return r.spec }

// Run makes one attempt. Of the call the server sees its input and its
// idempotency key, nothing of whom it is for.
func (r *remote) Run(ctx context.Context, call tool.Call, progress func(json.RawMessage) error) (tool.Result, error) {
	for first := true; ; first = false {
		sess, unavailable := r.server.open(ctx)
		if unavailable != nil {
			return tool.Result{}, unavailable
		}
		res, failed := r.ask(ctx, sess, call, progress)
		switch {
		case failed == nil:
			r.server.worked()
			return tool.Result{Output: res}, nil
		case failed == errForgotten && first:
			// The server does not know the session, so it did nothing.
			continue
		}
		return tool.Result{}, failed
	}
}

// rejected is what the SDK says when the transport, not the server, gave a call up.
const rejected = "rejected by transport"

// errForgotten says that the server has forgotten the session.
var errForgotten = &tool.Error{Class: Lost, Message: "The server forgot the session.", Retryable: true, ProviderFault: true}

// answer is what came of a call.
type answer struct {
	res *mcp.CallToolResult
	err error
}

// ask makes the call in a session.
func (r *remote) ask(ctx context.Context, sess *session, call tool.Call, progress func(json.RawMessage) error) (json.RawMessage, *tool.Error) {
	x := &exchange{}
	within, stop := sess.bound(ctx)
	defer stop()
	asking, giveUp := context.WithCancel(context.WithValue(ctx, exchangeKey{}, x))
	defer giveUp()
	f := &flight{progress: func(p *mcp.ProgressNotificationParams) {
		_ = progress(progressed(p)) // what it says of progress is not worth the call
	}}
	if call.Ask != nil {
		f.ask = func(q tool.Question) (tool.Answer, error) {
			q.For = r.server.c.question()
			return call.Ask(within, q)
		}
	}
	token := sess.begin(f)
	params := mcp.CallToolParams{Name: r.name, Arguments: call.Input, Meta: mcp.Meta{idempotency: call.IdempotencyKey}}
	params.SetProgressToken(token)
	var a answer
	for {
		done := make(chan answer, 1)
		go func(params mcp.CallToolParams) {
			res, err := sess.conn.CallTool(asking, &params)
			done <- answer{res, err}
		}(params)
		select {
		case a = <-done:
		case <-within.Done():
			a = sess.remains(ctx, giveUp, done)
		}
		if a.err != nil || !a.res.NeedsInput() || within.Err() != nil || sess.inVain(f) {
			break
		}
		responses, ok := sess.answers(f, a.res.InputRequests)
		if !ok {
			break
		}
		params.InputResponses, params.RequestState = responses, a.res.RequestState
	}
	asked := sess.over(token, within.Err() != nil)
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		sess.probe()
	}
	if a.err != nil {
		return nil, r.failed(ctx, sess, x, asked, a.err)
	}
	switch {
	case a.res.NeedsInput():
		return nil, needsInput(cmp.Or(asked, first(a.res.InputRequests)))
	case a.res.IsError && asked != "":
		return nil, needsInput(asked)
	case a.res.IsError:
		return nil, failure(a.res)
	}
	return output(a.res), nil
}

// remains is what comes of a call when its context or its session has ended. The
// SDK drops an answer that comes when the call's context is over, so one that a
// process wrote before it ended is waited for; giveUp ends that context.
func (sess *session) remains(ctx context.Context, giveUp func(), done <-chan answer) answer {
	if sess.child != nil && ctx.Err() == nil {
		select {
		case a := <-done:
			return a
		case <-time.After(parting):
		}
	}
	giveUp()
	// The call ends with its context, unless the server leaves what was sent
	// unread; that is found out by itself.
	select {
	case a := <-done:
		return a
	case <-time.After(time.Second):
		return answer{err: context.Canceled}
	}
}

// first is what one of the requests for input says.
func first(requests mcp.InputRequestMap) string {
	for _, q := range requests {
		if e, ok := q.(*mcp.ElicitParams); ok && e.Message != "" {
			return clean(e.Message, 1000, true)
		}
	}
	return "It does not say what."
}

// needsInput is the error of a call that a server does not finish without asking
// a person. Nothing was done yet, as far as the server says.
func needsInput(asked string) *tool.Error {
	return &tool.Error{Class: InputRequired, Message: "The server wants to ask a person: " + asked}
}

// failed says what an error of a call means.
func (r *remote) failed(ctx context.Context, sess *session, x *exchange, asked string, err error) *tool.Error {
	var (
		refusal *egress.Refusal
		broken  *egress.Failure
		missing *secret.Error
		told    *jsonrpc.Error
		writes  = r.spec.Writes
	)
	status := int(x.status.Load())
	switch {
	case ctx.Err() != nil:
		return &tool.Error{Class: outbound.Broken, Message: "The call was given up.", Unknown: writes}
	case errors.Is(err, mcp.ErrSessionMissing):
		r.server.drop(sess, mcp.ErrSessionMissing)
		return errForgotten
	case errors.As(err, &refusal), errors.As(err, &broken):
		return outbound.Error(err, writes)
	case errors.As(err, &missing):
		return outbound.SecretError(missing)
	case errors.As(err, &told) && told.Message != rejected:
		return r.told(told, asked)
	case status >= 300:
		if status < 500 && status != http.StatusTooManyRequests {
			r.server.drop(sess, err)
		}
		header := http.Header{}
		if h := x.header.Load(); h != nil {
			header = *h
		}
		return outbound.Status(egress.Response{Status: status, Header: header}, "", time.Now(), writes)
	}
	if !sess.brokeOff(err) {
		return &tool.Error{Class: outbound.BadAnswer, Message: fmt.Sprintf("What the server %s answers cannot be read.", r.server.c.Name),
			ProviderFault: true, Unknown: writes}
	}
	lost := &tool.Error{
		Class: Lost, Message: fmt.Sprintf("The server %s broke off: %s.", r.server.c.Name, r.reason(sess, err)),
		Retryable: true, ProviderFault: true, Unknown: writes,
	}
	if sess.child != nil || errors.Is(err, mcp.ErrConnectionClosed) {
		r.server.drop(sess, fmt.Errorf("%w: %w", errGone, err))
	}
	return lost
}

// brokeOff says whether an error is one of the connection. What is wrong with one
// answer leaves the session as it is.
func (sess *session) brokeOff(err error) bool {
	for _, of := range []error{mcp.ErrConnectionClosed, io.EOF, io.ErrUnexpectedEOF, os.ErrClosed, syscall.EPIPE, errDeaf} {
		if errors.Is(err, of) {
			return true
		}
	}
	if strings.Contains(err.Error(), "terminated without response") { // the stream of the one call
		return true
	}
	select {
	case <-sess.ctx.Done(): // whoever waits for the connection's end says why
		return true
	case <-time.After(parting):
		return false
	}
}

func (r *remote) reason(sess *session, err error) string {
	if cause := context.Cause(sess.ctx); cause != nil {
		err = cause
	}
	return plainly(err)
}

// told is an error that the server answered with.
func (r *remote) told(e *jsonrpc.Error, asked string) *tool.Error {
	message := clean(e.Message, 1000, true)
	switch {
	case e.Code == mcp.CodeURLElicitationRequired:
		return needsInput(message)
	case asked != "":
		return needsInput(asked)
	case e.Code == jsonrpc.CodeMethodNotFound:
		return &tool.Error{Class: outbound.NotFound, Message: "The server does not know it: " + message}
	case e.Code == jsonrpc.CodeInvalidParams, e.Code == jsonrpc.CodeInvalidRequest:
		return &tool.Error{Class: outbound.Rejected, Message: "The server does not take the call: " + message}
	}
	return &tool.Error{Class: outbound.Broken, Message: "The server failed: " + message, ProviderFault: true, Unknown: r.spec.Writes}
}
