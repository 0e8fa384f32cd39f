package model

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// OpenAIConfig says how to reach an endpoint that speaks OpenAI's chat
// completions: OpenRouter, a gateway, Ollama, llama.cpp. Start from
// OpenAIDefaults; a duration or size of 0 means not bounded.
type OpenAIConfig struct {
	// Provider names the endpoint in results and metrics.
	Provider string
	// BaseURL is the part before /chat/completions, such as
	// https://openrouter.ai/api/v1.
	BaseURL string
	// APIKey is sent as a bearer token; empty sends none.
	APIKey string
	Model  string
	// ContextTokens is what the model can be shown, 0 when not known. It is
	// only told in Info: the endpoint is the judge.
	ContextTokens int
	// Headers are sent with every request.
	Headers map[string]string

	// ConnectTimeout bounds getting a connection, TLS included.
	ConnectTimeout time.Duration
	// FirstTokenTimeout bounds the time from there to the first thing said.
	// Keep-alive comments do not count as something said.
	FirstTokenTimeout time.Duration
	// BetweenTokensTimeout bounds each silence after that. The time that the
	// caller's emit takes is not silence.
	BetweenTokensTimeout time.Duration
	// TotalTimeout bounds the call with all its attempts and waits.
	TotalTimeout time.Duration

	// MaxRetries is how many attempts may follow the first.
	MaxRetries int
	// BackoffBase doubles with each retry up to BackoffMax; half of it is
	// random. A provider's Retry-After is kept to when it is longer, and ends
	// the call when it is longer than MaxRetryAfter.
	BackoffBase   time.Duration
	BackoffMax    time.Duration
	MaxRetryAfter time.Duration

	// MaxLineBytes and MaxAnswerBytes bound what an endpoint may send.
	MaxLineBytes   int64
	MaxAnswerBytes int64

	// MaxCompletionTokens sends the bound of the output under its newer name,
	// max_completion_tokens, which OpenAI asks for and others do not know.
	MaxCompletionTokens bool
	// StrictSchema asks for strict adherence to the output schema, which OpenAI
	// grants for a subset of JSON Schema only.
	StrictSchema bool
}

// OpenAIDefaults are times and sizes that suit a hosted model.
func OpenAIDefaults() OpenAIConfig {
	return OpenAIConfig{
		Provider:             "openai",
		ConnectTimeout:       10 * time.Second,
		FirstTokenTimeout:    60 * time.Second,
		BetweenTokensTimeout: 30 * time.Second,
		TotalTimeout:         10 * time.Minute,
		MaxRetries:           2,
		BackoffBase:          500 * time.Millisecond,
		BackoffMax:           8 * time.Second,
		MaxRetryAfter:        30 * time.Second,
		MaxLineBytes:         1 << 20,
		MaxAnswerBytes:       16 << 20,
	}
}

// OpenAI is a model behind an OpenAI-compatible endpoint. The library's own
// retries are off: it would retry without knowing of the total timeout, of a
// maybe-billed attempt or of an error inside a stream.
type OpenAI struct {
	cfg  OpenAIConfig
	chat openai.ChatCompletionService
	// wait sleeps before a retry.
	wait func(ctx context.Context, d time.Duration) error
}

// NewOpenAI checks the configuration and makes a model that sends its requests
// with client. Nothing is read from the environment.
func NewOpenAI(cfg OpenAIConfig, client *http.Client) (*OpenAI, error) {
	u, err := url.Parse(cfg.BaseURL)
	switch {
	case err != nil:
		return nil, errors.New("model base URL cannot be parsed")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, errors.New("model base URL must be an absolute http or https URL")
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("model base URL must have no user, query or fragment: the key has its own setting")
	case cfg.Model == "":
		return nil, errors.New("model name is missing")
	case cfg.Provider == "":
		return nil, errors.New("model provider name is missing")
	case cfg.MaxRetries < 0:
		return nil, fmt.Errorf("model retries must not be negative: %d", cfg.MaxRetries)
	case client == nil:
		return nil, errors.New("model needs an HTTP client")
	}
	opts := []option.RequestOption{
		option.WithBaseURL(cfg.BaseURL),
		option.WithHTTPClient(client),
		option.WithMaxRetries(0),
	}
	if cfg.APIKey != "" {
		opts = append(opts, option.WithAPIKey(cfg.APIKey))
	}
	for k, v := range cfg.Headers {
		opts = append(opts, option.WithHeader(k, v))
	}
	return &OpenAI{cfg: cfg, chat: openai.NewChatCompletionService(opts...), wait: sleep}, nil
}

// Info names the endpoint and the model asked for.
func (o *OpenAI) Info() Info {
	return Info{Provider: o.cfg.Provider, Model: o.cfg.Model, ContextTokens: o.cfg.ContextTokens}
}

// Stream asks the endpoint, again when an attempt failed in a way that may pass
// and nothing has been emitted yet.
func (o *OpenAI) Stream(ctx context.Context, req Request, emit func(Event) error) (Result, error) {
	res := Result{Provider: o.cfg.Provider, RequestedModel: o.cfg.Model}
	params, err := o.params(req)
	if err != nil {
		return res, err
	}
	caller := ctx
	if o.cfg.TotalTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.cfg.TotalTimeout,
			&Error{Class: Timeout, Retryable: true, Message: fmt.Sprintf("no complete answer within %s", o.cfg.TotalTimeout)})
		defer cancel()
	}

	billed := false
	for n := 1; ; n++ {
		a := &attempt{o: o, caller: caller, emit: emit}
		a.run(ctx, params, req.IdempotencyKey)
		a.fill(&res)
		res.Attempts = n
		if a.err == nil && a.stopped == nil {
			res.MaybeBilled = billed || !res.Usage.Told
			return res, nil
		}
		if a.stopped != nil {
			res.MaybeBilled = true
			return res, a.stopped
		}
		failed := a.err
		billed = billed || failed.MaybeBilled
		failed.MaybeBilled, res.MaybeBilled = billed, billed
		if !failed.Retryable || !a.again || a.emitted || n > o.cfg.MaxRetries {
			return res, failed
		}
		delay, ok := o.delay(n, failed.RetryAfter)
		if deadline, bounded := ctx.Deadline(); !ok || bounded && time.Until(deadline) < delay {
			return res, failed
		}
		if err := o.wait(ctx, delay); err != nil {
			stopped := ended(ctx, caller)
			stopped.MaybeBilled = billed
			return res, stopped
		}
	}
}

// delay is the time to wait after the n-th attempt; false when the provider
// asks for more patience than is allowed.
func (o *OpenAI) delay(n int, retryAfter time.Duration) (time.Duration, bool) {
	if o.cfg.MaxRetryAfter > 0 && retryAfter > o.cfg.MaxRetryAfter {
		return 0, false
	}
	d := o.cfg.BackoffBase
	for i := 1; i < min(n, 20) && (o.cfg.BackoffMax <= 0 || d < o.cfg.BackoffMax); i++ {
		d *= 2
	}
	if o.cfg.BackoffMax > 0 {
		d = min(d, o.cfg.BackoffMax)
	}
	if d > 1 {
		d = d/2 + rand.N(d/2+1)
	}
	return max(d, retryAfter), true
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
