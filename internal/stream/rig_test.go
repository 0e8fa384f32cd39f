package stream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

const patience = 20 * time.Second // after which a test that waits fails

// rig is one process that serves streams.
type rig struct {
	*runtest.Process
	h   *stream.Handler
	srv *httptest.Server
}

func newRig(t testing.TB, cfg stream.Config, adjust ...func(*httptest.Server)) *rig {
	t.Helper()
	return newRigOn(t, dbtest.New(t), cfg, adjust...)
}

func newRigOn(t testing.TB, pool *pgxpool.Pool, cfg stream.Config, adjust ...func(*httptest.Server)) *rig {
	t.Helper()
	p := runtest.NewProcess(t, pool)
	g := &rig{Process: p, h: stream.New(pool, p.Watch, cfg, p.Metrics)}
	g.srv = httptest.NewUnstartedServer(runtest.Streams(pool, g.h))
	for _, f := range adjust {
		f(g.srv)
	}
	g.srv.Start()
	t.Cleanup(func() {
		g.h.Shutdown()
		g.srv.Close()
	})
	return g
}

func (g *rig) url(r db.Run) string { return g.srv.URL + "/runs/" + r.RunID + "/stream" }

// get asks for a stream after a cursor.
func (g *rig) get(t testing.TB, r db.Run, cursor int64) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url(r), nil)
	require.NoError(t, err)
	req.Header.Set("Last-Event-ID", strconv.FormatInt(cursor, 10))
	resp, err := g.srv.Client().Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// readAll reads a stream to its end, which must be clean.
func (g *rig) readAll(t testing.TB, r db.Run, cursor int64) string {
	t.Helper()
	resp := g.get(t, r, cursor)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return events(string(body))
}

// events is a body without the blocks that belong to no event.
func events(body string) string {
	var out strings.Builder
	for block := range strings.SplitAfterSeq(body, "\n\n") {
		if !strings.HasPrefix(block, ":") && !strings.HasPrefix(block, "retry:") {
			out.WriteString(block)
		}
	}
	return out.String()
}

// blocks reads a body block by block.
type blocks struct{ r *bufio.Reader }

func blocksOf(resp *http.Response) blocks { return blocks{bufio.NewReader(resp.Body)} }

// next is the next block that belongs to an event.
func (b blocks) next() (string, error) {
	for {
		block, err := b.any()
		if err != nil {
			return block, err
		}
		if e := events(block); e != "" {
			return e, nil
		}
	}
}

// any is the next block of any kind.
func (b blocks) any() (string, error) {
	var block strings.Builder
	for {
		line, err := b.r.ReadString('\n')
		block.WriteString(line)
		if err != nil {
			return block.String(), err
		}
		if line == "\n" {
			return block.String(), nil
		}
	}
}

// until reads blocks of events up to the one of a seq.
func (b blocks) until(t testing.TB, seq int64) string {
	t.Helper()
	var out strings.Builder
	for {
		block, err := b.next()
		require.NoError(t, err)
		out.WriteString(block)
		if strings.HasSuffix(block, fmt.Sprintf("id: %d\n\n", seq)) {
			return out.String()
		}
	}
}

// brokenEnd reads a stream that must be broken off, and gives what came.
func (b blocks) brokenEnd(t testing.TB) string {
	t.Helper()
	rest, err := io.ReadAll(b.r)
	require.Error(t, err, "a stream that is not at its [DONE] must not end cleanly")
	require.True(t, errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "reset"), "unexpected: %v", err)
	return string(rest)
}

// ended waits until so many streams have ended in a way.
func (g *rig) ended(t testing.TB, outcome string, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return g.count(t, "stream_ends_total", outcome) == float64(n) },
		patience, 5*time.Millisecond, "%d streams should have ended as %s", n, outcome)
}

// count is the value of a counter or gauge, of one outcome if it has them.
func (g *rig) count(t testing.TB, name, outcome string) float64 {
	t.Helper()
	families, err := g.Metrics.Registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != prometheus.BuildFQName("openagents_runtime", "", name) {
			continue
		}
		for _, m := range f.GetMetric() {
			if outcome == "" || m.GetLabel()[0].GetValue() == outcome {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}
