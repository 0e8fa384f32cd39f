package php_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestABrowserGetsEachBlockAsItIsSent: the upstream sends a block only when the
// one before it has come out of Laravel.
func TestABrowserGetsEachBlockAsItIsSent(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	u := newUpstream(t, func(_ int, q request) {
		q.open()
		for i, b := range blocks {
			if i > 0 {
				select {
				case <-arrived:
				case <-q.r.Context().Done():
					return
				}
			}
			q.send(b)
		}
	})
	response := get(t, within(t), laravel(t, u.URL)+"/stream/r1", map[string]string{
		"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=b", "x-request-id": "req-browser",
	})
	require.Equal(t, http.StatusOK, response.StatusCode)
	for name, value := range map[string]string{
		"X-Vercel-Ai-Ui-Message-Stream": "v1", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff", "X-Oa-Run-Id": "r1",
	} {
		require.Equal(t, value, response.Header.Get(name), name)
	}
	require.True(t, strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream"))
	require.Contains(t, response.Header.Get("Cache-Control"), "no-transform")
	for i, b := range blocks {
		if i > 0 {
			allow(t, arrived)
		}
		awaitBytes(t, response.Body, b)
	}
	require.Empty(t, text(t, response))

	sent := u.requests()[0].Header
	require.Equal(t, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", sent.Get("traceparent"))
	require.Equal(t, "a=b", sent.Get("tracestate"))
	require.Equal(t, "req-browser", sent.Get("x-request-id"))
	require.Equal(t, "7", sent.Get("X-OA-USER-ID"))
}

// TestABrowserSeesNoCut: the upstream breaks off in the middle of blocks.
func TestABrowserSeesNoCut(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(n int, q request) {
		q.open()
		rest := after(q.lastEventID())
		if n < 5 {
			q.send(rest[:min(len(rest), 90)])
			q.abort()
		}
		q.send(rest)
	})
	body := text(t, get(t, within(t), laravel(t, u.URL)+"/stream/r1", nil))
	require.Equal(t, shown(whole), shown(body))
	require.Equal(t, 1, strings.Count(body, `"type":"start"`))
	require.Len(t, u.requests(), 5)
}

// TestABrowserThatLeavesIsNotReadFor: the connection to the service is closed,
// and the PHP worker is free again.
func TestABrowserThatLeavesIsNotReadFor(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	u := newUpstream(t, func(n int, q request) {
		q.open()
		if n > 1 {
			q.send(whole)
			return
		}
		q.send(blocks[0] + blocks[1])
		beat := time.NewTicker(20 * time.Millisecond)
		defer beat.Stop()
		for {
			select {
			case <-beat.C:
				q.send(": keep-alive\n\n")
			case <-q.r.Context().Done():
				close(closed)
				return
			}
		}
	})
	app := laravel(t, u.URL)
	ctx, leave := context.WithCancel(within(t))
	defer leave()
	response := get(t, ctx, app+"/stream/r1", nil)
	awaitBytes(t, response.Body, blocks[0]+blocks[1])
	leave()
	select {
	case <-closed:
	case <-time.After(patience):
		require.FailNow(t, "the upstream is still being read")
	}
	require.Equal(t, whole, text(t, get(t, within(t), app+"/stream/r1", nil)))
}

// TestAnUnreachableServiceLeavesTheResponseToTheApplication.
func TestAnUnreachableServiceLeavesTheResponseToTheApplication(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]func(int, request){
		"gone":    func(_ int, q request) { q.abort() },
		"away":    func(_ int, q request) { q.fail(http.StatusServiceUnavailable, "unavailable", "{}") },
		"unknown": func(_ int, q request) { q.fail(http.StatusNotFound, "run_not_found", "{}") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, handle)
			response := get(t, within(t), laravel(t, u.URL)+"/stream/r1", nil)
			require.Equal(t, http.StatusOK, response.StatusCode)
			require.Equal(t, "the legacy answer", text(t, response))
			require.Empty(t, response.Header.Get("x-oa-run-id"))
		})
	}
}

// TestAStreamThatBreaksForGoodSaysSo: no second start and no [DONE].
func TestAStreamThatBreaksForGoodSaysSo(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(n int, q request) {
		if n > 1 {
			q.fail(http.StatusGone, "stale_cursor", `{"floor":4,"head":9,"restartCursor":4,"snapshotUrl":"/internal/v1/runs/r1"}`)
			return
		}
		q.open()
		q.send(strings.Join(blocks[:5], ""))
		q.abort()
	})
	body := text(t, get(t, within(t), laravel(t, u.URL)+"/stream/r1", nil))
	begin := strings.Join(blocks[:5], "")
	require.True(t, strings.HasPrefix(body, begin), body)
	require.Regexp(t, `^data: \{"type":"error","errorText":"[^"]+"\}\n\n$`, strings.TrimPrefix(body, begin))
}

// TestABrowserResumes: Last-Event-ID goes through, and 204 comes back.
func TestABrowserResumes(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(_ int, q request) {
		if q.lastEventID() == "8" {
			q.w.WriteHeader(http.StatusNoContent)
			return
		}
		q.open()
		q.send(after(q.lastEventID()))
	})
	app := laravel(t, u.URL)
	require.Equal(t, after("4"), text(t, get(t, within(t), app+"/stream/r1", map[string]string{"Last-Event-ID": "4"})))
	response := get(t, within(t), app+"/stream/r1", map[string]string{"Last-Event-ID": "8"})
	require.Equal(t, http.StatusNoContent, response.StatusCode)
}
