package model_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

const limited = `{"error":{"message":"slow down, sk-test-5ecret said: the launch code is plover","type":"rate_limit_error","code":"rate_limit_exceeded"}}`

func TestRetryAfterIsKeptTo(t *testing.T) {
	t.Parallel()
	good := stream(text("hi"), stop("stop"), usageChunk)
	for name, h := range map[string][]string{
		"seconds":      {"Retry-After", "7"},
		"milliseconds": {"Retry-After-Ms", "7000"},
		"date":         {"Retry-After", time.Now().Add(8 * time.Second).UTC().Format(http.TimeFormat)},
	} {
		e := serve(t, status(429, limited, h...), good)
		m, waits := e.dial(t, nil)
		res, err := m.Stream(t.Context(), ask(), new(listen).emit)
		require.NoError(t, err)
		require.Equal(t, 2, res.Attempts)
		require.False(t, res.MaybeBilled, "a 429 is not charged")
		require.Len(t, *waits, 1)
		require.InDelta(t, 7, (*waits)[0].Seconds(), 1.1, name)
	}
}

func TestAWaitThatIsTooLongIsTheCallers(t *testing.T) {
	t.Parallel()
	e := serve(t, status(429, limited, "Retry-After", "3600"))
	m, waits := e.dial(t, nil)
	_, err := m.Stream(t.Context(), ask(), new(listen).emit)
	got := failure(t, err, model.RateLimited)
	require.Equal(t, time.Hour, got.RetryAfter)
	require.True(t, got.Retryable)
	require.Contains(t, got.Message, "429 (rate_limit_exceeded)")
	require.Empty(t, *waits)

	e = serve(t, status(429, limited, "Retry-After", "20"))
	m, waits = e.dial(t, func(c *model.OpenAIConfig) { c.TotalTimeout = 10 * time.Second })
	_, err = m.Stream(t.Context(), ask(), new(listen).emit)
	failure(t, err, model.RateLimited)
	require.Empty(t, *waits, "the call would be over before the wait is")
}

func TestServerErrorsAreRetriedWithGrowingWaitsUntilThereIsNoneLeft(t *testing.T) {
	t.Parallel()
	e := serve(t, status(500, `{"error":{"message":"oops"}}`))
	m, waits := e.dial(t, func(c *model.OpenAIConfig) {
		c.MaxRetries, c.BackoffBase, c.BackoffMax = 4, 100*time.Millisecond, 300*time.Millisecond
	})
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	got := failure(t, err, model.Unavailable)
	require.Equal(t, 500, got.Status)
	require.True(t, got.MaybeBilled)
	require.Equal(t, 5, res.Attempts)
	require.Equal(t, 5, e.requests())
	require.Len(t, *waits, 4)
	for i, most := range []time.Duration{100, 200, 300, 300} {
		require.LessOrEqual(t, (*waits)[i], most*time.Millisecond+1)
		require.GreaterOrEqual(t, (*waits)[i], most*time.Millisecond/2)
	}
}

func TestABurstOfErrorsPasses(t *testing.T) {
	t.Parallel()
	e := serve(t, status(503, "<html>busy</html>"), status(502, ""), stream(text("hi"), stop("stop"), usageChunk))
	m, _ := e.dial(t, nil)
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	require.NoError(t, err)
	require.Equal(t, 3, res.Attempts)
	require.True(t, res.MaybeBilled, "behind a 502 an answer may have been made")
}

func TestStatusesBecomeClasses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		class  model.Class
		tries  int
	}{
		{401, `{"error":{"message":"Incorrect API key provided: sk-test-5ecret","code":"invalid_api_key"}}`, model.Auth, 1},
		{403, `{"error":{"message":"no"}}`, model.Auth, 1},
		{403, `{"error":{"message":"Your input was flagged: moderation: the launch code is plover","code":403}}`, model.ContentFilter, 1},
		{400, `{"error":{"message":"bad plover","type":"invalid_request_error"}}`, model.InvalidRequest, 1},
		{400, `{"error":{"message":"This model's maximum context length is 8 tokens","code":"context_length_exceeded"}}`, model.ContextWindow, 1},
		{400, `{"error":{"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}`, model.ContextWindow, 1},
		{400, `{"error":{"message":"filtered","code":"content_filter"}}`, model.ContentFilter, 1},
		{402, `{"error":{"message":"no credits"}}`, model.RateLimited, 1},
		{404, `not found plover`, model.InvalidRequest, 1},
		{408, `{}`, model.Timeout, 2},
		{409, `{}`, model.Unavailable, 2},
		{429, `{"error":{"message":"quota","code":"insufficient_quota"}}`, model.RateLimited, 1},
		{429, `plover`, model.RateLimited, 2},
		{501, `{}`, model.InvalidRequest, 1},
		{503, `{}`, model.Unavailable, 2},
		{304, ``, model.Protocol, 1},
	} {
		e := serve(t, status(c.status, c.body))
		m, _ := e.dial(t, func(cfg *model.OpenAIConfig) { cfg.MaxRetries = 1 })
		_, err := m.Stream(t.Context(), ask(), new(listen).emit)
		got := failure(t, err, c.class)
		require.Equal(t, c.status, got.Status)
		require.Equal(t, c.tries, e.requests(), "%d %s", c.status, c.body)
		require.False(t, got.MaybeBilled)
	}
}

func TestAnErrorInsideAStream(t *testing.T) {
	t.Parallel()
	inside := `data: {"id":"gen-1","error":{"code":502,"message":"upstream fell over plover"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}`

	e := serve(t, stream(inside), stream(text("hi"), stop("stop"), usageChunk))
	m, _ := e.dial(t, nil)
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	require.NoError(t, err)
	require.Equal(t, 2, res.Attempts)

	e = serve(t, stream(text("half"), inside))
	m, _ = e.dial(t, nil)
	res, err = m.Stream(t.Context(), ask(), new(listen).emit)
	got := failure(t, err, model.Unavailable)
	require.Equal(t, 502, got.Status)
	require.True(t, got.MaybeBilled)
	require.Equal(t, 1, res.Attempts)

	for line, class := range map[string]model.Class{
		`data: {"error":{"code":"rate_limit_exceeded","message":"x"}}`:                            model.RateLimited,
		`data: {"error":{"code":"429","message":"x"}}`:                                            model.RateLimited,
		`data: {"error":"plover"}`:                                                                model.Unavailable,
		`data: {"error":{"type":"exceed_context_size_error"}}`:                                    model.ContextWindow,
		`data: {"id":"g","choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}`: model.Unavailable,
	} {
		e = serve(t, stream(text("half"), line))
		m, _ = e.dial(t, nil)
		_, err = m.Stream(t.Context(), ask(), new(listen).emit)
		failure(t, err, class)
	}
}

func TestACancelEndsTheWaitForARetry(t *testing.T) {
	t.Parallel()
	e := serve(t, status(429, limited))
	m, _ := e.dial(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	model.RecordWaits(m, func(ctx context.Context, _ time.Duration) error {
		cancel()
		return ctx.Err()
	})
	_, err := m.Stream(ctx, ask(), new(listen).emit)
	failure(t, err, model.Canceled)
	require.Equal(t, 1, e.requests())
}

func TestTheRealWaitRunsOutAndCanBeStopped(t *testing.T) {
	t.Parallel()
	require.NoError(t, model.Sleep(t.Context(), time.Millisecond))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, model.Sleep(ctx, time.Hour), context.Canceled)
}

func TestAConfigurationThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*model.OpenAIConfig){
		"relative": func(c *model.OpenAIConfig) { c.BaseURL = "v1" },
		"scheme":   func(c *model.OpenAIConfig) { c.BaseURL = "ftp://h/v1" },
		"user":     func(c *model.OpenAIConfig) { c.BaseURL = "https://u:sk-test-5ecret@h/v1" },
		"control":  func(c *model.OpenAIConfig) { c.BaseURL = "https://h/\x7f" },
		"model":    func(c *model.OpenAIConfig) { c.Model = "" },
		"provider": func(c *model.OpenAIConfig) { c.Provider = "" },
		"retries":  func(c *model.OpenAIConfig) { c.MaxRetries = -1 },
	} {
		cfg := model.OpenAIDefaults()
		cfg.BaseURL, cfg.Model = "https://h/v1", "m"
		change(&cfg)
		_, err := model.NewOpenAI(cfg, http.DefaultClient)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), testKey)
	}
	cfg := model.OpenAIDefaults()
	cfg.BaseURL, cfg.Model = "https://h/v1", "m"
	_, err := model.NewOpenAI(cfg, nil)
	require.Error(t, err)
}
