package model

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// attempt is one request and what came of it.
type attempt struct {
	o      *OpenAI
	caller context.Context
	emit   func(Event) error
	dog    *watchdog

	// sent is set once the request may have reached the endpoint.
	sent    atomic.Bool
	status  int
	header  http.Header
	emitted bool
	// again allows another attempt, when the error is retryable and nothing was
	// emitted.
	again bool
	// err is why the attempt failed; stopped is the emit error that ended it.
	err     *Error
	stopped error

	text, reasoning    strings.Builder
	calls              callParts
	done               []ToolCall
	finish             FinishReason
	refused            bool
	usage              Usage
	served, responseID string
}

// run sends the request and reads the answer to its end.
func (a *attempt) run(ctx context.Context, params openai.ChatCompletionNewParams, key string) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cfg := a.o.cfg
	a.dog = &watchdog{cancel: cancel}
	defer a.dog.end()
	a.dog.watch(cfg.ConnectTimeout, &Error{Class: Timeout, Retryable: true,
		Message: fmt.Sprintf("no connection within %s", cfg.ConnectTimeout)})
	trace := &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			a.sent.Store(true)
			a.dog.watch(cfg.FirstTokenTimeout, &Error{Class: Timeout, Retryable: true, MaybeBilled: true,
				Message: fmt.Sprintf("nothing said within %s", cfg.FirstTokenTimeout)})
		},
	}
	opts := []option.RequestOption{option.WithMiddleware(a.receive), option.WithHeader("Accept", "text/event-stream")}
	if key != "" {
		opts = append(opts, option.WithHeader("Idempotency-Key", key))
	}
	a.err = a.read(httptrace.WithClientTrace(ctx, trace), params, opts)
}

func (a *attempt) read(ctx context.Context, params openai.ChatCompletionNewParams, opts []option.RequestOption) *Error {
	stream := a.o.chat.NewStreaming(ctx, params, opts...)
	// What closing an abandoned answer comes to changes nothing about it.
	defer func() { _ = stream.Close() }()
	for stream.Next() {
		if a.take(stream.Current()); a.stopped != nil {
			return nil
		}
	}
	if a.finish == "" || a.finish == FinishError || a.caller.Err() != nil {
		return a.failure(ctx, stream.Err())
	}
	// The answer was complete: what broke after it can only have cost us usage.
	return a.close()
}

// receive looks at the response before the library reads it, and bounds it.
func (a *attempt) receive(req *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	res, err := next(guarded(req))
	if err != nil {
		return res, err
	}
	a.status, a.header = res.StatusCode, res.Header
	if res.StatusCode >= 300 {
		res.Body = cut(res.Body, 64<<10)
		return res, nil
	}
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if media == "application/json" || media == "text/html" {
		_ = res.Body.Close()
		return nil, errNotStream
	}
	if a.o.cfg.MaxLineBytes > 0 || a.o.cfg.MaxAnswerBytes > 0 {
		res.Body = &boundedBody{ReadCloser: res.Body, maxLine: bound(a.o.cfg.MaxLineBytes), maxTotal: bound(a.o.cfg.MaxAnswerBytes)}
	}
	return res, nil
}

var errNotStream = errors.New("not a stream")

func bound(n int64) int64 {
	if n <= 0 {
		return 1<<63 - 1
	}
	return n
}

// take handles one chunk.
func (a *attempt) take(chunk openai.ChatCompletionChunk) {
	if chunk.ID != "" {
		a.responseID = clip(chunk.ID)
	}
	if chunk.Model != "" {
		a.served = clip(chunk.Model)
	}
	if chunk.JSON.Usage.Valid() {
		a.usage = usage(chunk.Usage)
	}
	for _, c := range chunk.Choices {
		if c.Index == 0 {
			a.takeChoice(c)
		}
	}
}

func (a *attempt) takeChoice(c openai.ChatCompletionChunkChoice) {
	if r := reasoning(c.Delta); r != "" {
		a.reasoning.WriteString(r)
		a.say(Event{Kind: ReasoningDelta, Delta: r})
	}
	a.refused = a.refused || c.Delta.Refusal != ""
	for _, t := range []string{c.Delta.Content, c.Delta.Refusal} {
		if t != "" {
			a.text.WriteString(t)
			a.say(Event{Kind: TextDelta, Delta: t})
		}
	}
	for _, t := range c.Delta.ToolCalls {
		a.calls.add(t)
		a.heard()
	}
	if c.FinishReason != "" && a.finish == "" {
		a.finish = finish(c.FinishReason)
		a.heard()
	}
}

// say emits; the watchdog rests meanwhile, since the caller's time is not the
// endpoint's. After a failed emit it says nothing more.
func (a *attempt) say(e Event) {
	if a.stopped != nil {
		return
	}
	a.dog.rest()
	a.emitted = true
	if err := a.emit(e); err != nil {
		a.stopped = fmt.Errorf("emit: %w", err)
		return
	}
	a.heard()
}

// heard starts the wait for the next token.
func (a *attempt) heard() {
	d := a.o.cfg.BetweenTokensTimeout
	a.dog.watch(d, &Error{Class: Timeout, Retryable: true, MaybeBilled: true,
		Message: fmt.Sprintf("silence of more than %s in the middle of the answer", d)})
}

// close ends a complete answer: its tool calls are emitted now that they are
// whole.
func (a *attempt) close() *Error {
	calls, failed := a.calls.complete(a.finish != FinishLength)
	if failed != nil {
		a.again = true
		return failed
	}
	a.done = calls
	switch {
	case a.refused:
		a.finish = FinishContentFilter
	case len(calls) > 0 && a.finish == FinishStop:
		a.finish = FinishToolCalls
	}
	for i := range calls {
		a.say(Event{Kind: CallsTool, ToolCall: &calls[i]})
	}
	return nil
}

// fill puts what the attempt came to into the call's result.
func (a *attempt) fill(res *Result) {
	res.Text, res.Reasoning, res.ToolCalls = a.text.String(), a.reasoning.String(), a.done
	res.FinishReason, res.Usage = a.finish, a.usage
	res.ServedModel, res.ProviderRequestID = a.served, a.responseID
	if res.ProviderRequestID == "" && a.header != nil {
		res.ProviderRequestID = clip(a.header.Get("X-Request-Id"))
	}
	if a.err != nil || a.stopped != nil {
		res.FinishReason = FinishError
	}
}
