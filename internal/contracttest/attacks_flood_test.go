package contracttest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/server"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

func contextWithoutEnd(t *testing.T) context.Context { return context.WithoutCancel(t.Context()) }

// Every role may notify on every channel. A notification wakes, and says nothing.
func TestA44AForgedNotification(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A44", contracttest.Options{})
	forger := serving(t, s.Pool)
	heard := make(chan string, 1<<16)
	listening := make(chan struct{}, 1)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- pg.Listen(ctx, dbtest.URL(t), runlog.Channel, func(p string) {
			s.Process.Watch.Notified(p)
			heard <- p
		}, func() { listening <- struct{}{} })
	}()
	<-listening
	work := s.Process.Watch.Work()
	defer work.Close()
	long := strings.Repeat("x,", 3990)
	for attack, payload := range map[string]string{
		"nothing": "", "garbage": "\x01\x7f!!,,!,", "a payload of 8 kB": long, "SQL": "x,'; DROP TABLE runtime.runs; --",
		"a run that is not": "x,!00000000-0000-7000-8000-000000000001", "a finished run with work": "x,!" + s.key(t, s.ended),
		"a flood": "x,!" + s.key(t, s.live),
	} {
		times := 1
		if attack == "a flood" {
			times = 5000
		}
		_, err := forger.Exec(t.Context(), "SELECT pg_notify($1, $2 || ',' || n) FROM generate_series(1, $3::int) n", runlog.Channel, payload, times)
		require.NoError(t, err)
		for range times {
			<-heard
		}
		require.LessOrEqual(t, len(work.C), 1, "%s: more than one wake-up waits", attack)
		require.LessOrEqual(t, len(work.Keys()), 1, "%s: a run is named twice", attack)
		require.Equal(t, http.StatusOK, s.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + s.live}).Status)
		s.note(t, "NOTIFY by another role: "+attack, "at most one wake-up and one read")
	}
	stop()
	require.NoError(t, <-ended)
}

// key is a run's run_key.
func (s *siege) key(t *testing.T, runID string) string {
	t.Helper()
	var key string
	require.NoError(t, s.Pool.QueryRow(t.Context(), "SELECT run_key::text FROM runs WHERE run_id = $1", runID).Scan(&key))
	return key
}

func TestA46OneTenantIgnoresRetryAfter(t *testing.T) {
	t.Parallel()
	r := contracttest.New(t, dbtest.New(t), contracttest.Options{Admission: server.AdmissionConfig{MaxRunsPerOwner: 2, MaxInFlight: 16}})
	s := &siege{world: &world{Rig: r, t: t}, id: "A46"}
	for _, id := range []string{"r1", "r2"} {
		require.Equal(t, 202, r.Do(t, startOf(id)).Status)
		require.Equal(t, 202, r.Do(t, frameOf(id, "f1")).Status)
	}
	require.NoError(t, r.Admission.Once(t.Context()))
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[string]int{}
	for g := range 8 {
		wg.Go(func() {
			for i := range 25 {
				a, err := r.Send(t, startOf(fmt.Sprintf("greedy-%d-%d", g, i)))
				mu.Lock()
				if err != nil {
					codes[err.Error()]++
				} else {
					codes[a.Code()]++
					if a.Header.Get("Retry-After") == "" {
						codes["no Retry-After"]++
					}
				}
				mu.Unlock()
			}
		})
	}
	for i := range 20 {
		other := startOf(fmt.Sprintf("other-%d", i))
		other.User, other.Body = 2, fmt.Sprintf(`{"runId":"other-%d","threadId":"t","userId":2,"authenticatedSession":true}`, i)
		require.Equal(t, 202, r.Do(t, other).Status, "the other tenant is served")
	}
	wg.Wait()
	require.Equal(t, map[string]int{"owner_busy": 200}, codes)
	var greedy int
	require.NoError(t, r.Pool.QueryRow(t.Context(), "SELECT count(*) FROM runs WHERE user_id = 1").Scan(&greedy))
	require.Equal(t, 2, greedy)
	s.note(t, "200 starts at once past Retry-After", "429 owner_busy each; another tenant 20 of 20 served")
}

func TestA47UnboundedConsumption(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A47", contracttest.Options{
		Admission: server.AdmissionConfig{MaxWaitingFrames: 1, MaxRunsPerOwner: 1},
		Stream:    stream.Config{MaxReadersPerRun: 1},
	})
	s.refuse(t, "one frame more than a run takes", frameOf(s.live, "more"), "too_many_frames", "")
	c := s.dial(t)
	q := contracttest.Request{Target: "/internal/v1/runs/" + s.live + "/stream"}
	c.send(t, s.head(t, q)+"\r\n")
	_, err := http.ReadResponse(c.read, nil)
	require.NoError(t, err)
	s.refuse(t, "one reader more than a run takes", q, "unavailable", "")
}

func TestA48StreamsThatAreNotTheCallersToRead(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A48", contracttest.Options{Stream: stream.Config{ExpiryGrace: time.Millisecond}})
	of := func(id string) contracttest.Request {
		return contracttest.Request{Target: "/internal/v1/runs/" + id + "/stream"}
	}
	theirs := s.refuse(t, "the stream of another tenant", of(s.other), "run_not_found", "")
	missing := s.refuse(t, "the stream of no run", of("run-nobody"), "run_not_found", "")
	require.Equal(t, strings.ReplaceAll(message(t, theirs), s.other, "ID"), strings.ReplaceAll(message(t, missing), "run-nobody", "ID"))
	s.refuse(t, "the stream of a guest", of(s.ofGuest), "run_not_found", "")
	s.refuse(t, "a cursor in what has aged out", contracttest.Request{Target: of(s.stale).Target + "?cursor=1"}, "stale_cursor", "")
	ended := s.Do(t, of(s.ended))
	require.Contains(t, string(ended.Body), "[DONE]")
	past := s.Do(t, contracttest.Request{Target: of(s.ended).Target + "?cursor=1000"})
	require.Equal(t, http.StatusNoContent, past.Status)
	s.note(t, "a cursor past the end of a finished run", "204, nothing to resume")

	q := of(s.live)
	begun := time.Now()
	q.Claims = func(c *auth.Claims) { c.IssuedAt, c.ExpiresAt = begun.Unix(), begun.Unix()+2 }
	a := s.Do(t, q)
	require.True(t, a.Cut, "the stream ends as if it were whole")
	require.NotContains(t, string(a.Body), "[DONE]")
	require.Less(t, time.Since(begun), time.Minute)
	s.note(t, "the token expires in an open stream", "broken off")
}

func message(t *testing.T, a contracttest.Answer) string {
	t.Helper()
	var e struct{ Error struct{ Message string } }
	a.Into(t, &e)
	return e.Error.Message
}

// An executor that stood still past its trust window finds out when its request
// is to be written, and sends nothing.
func TestA43AFencedExecutorCallsOn(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A43", contracttest.Options{})
	r, err := db.New(s.Pool).RunGet(t.Context(), s.live)
	require.NoError(t, err)
	h, ok := runtest.Hold(t, runtest.NewProcessTTL(t, s.Pool, 300*time.Millisecond), r)
	require.True(t, ok)
	s.before = s.state(t) // the grant has raised the epoch
	require.Eventually(t, func() bool { return !h.Trusted() }, 10*time.Second, time.Millisecond)
	var heard atomic.Int64
	provider := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		if _, err := io.ReadAll(req.Body); err == nil {
			heard.Add(1)
		}
	}))
	defer provider.Close()
	c := model.OpenAIDefaults()
	c.BaseURL, c.Model, c.MaxRetries = provider.URL, "m", 0
	m, err := model.NewOpenAI(c, provider.Client())
	require.NoError(t, err)
	ctx := model.WithGuard(t.Context(), func() error {
		if !h.Trusted() {
			return lease.ErrLost
		}
		return nil
	})
	_, err = m.Stream(ctx, model.Request{Messages: []model.Message{{Role: model.RoleUser, Content: "x"}}}, func(model.Event) error { return nil })
	require.Error(t, err)
	require.Zero(t, heard.Load())
	s.note(t, "a model call after the trust window", "no request reaches the provider")
	_, err = h.Commit(t.Context(), func(runlog.Head) (runlog.Change, error) { return runlog.Change{}, nil })
	require.ErrorIs(t, err, lease.ErrLost)
	s.note(t, "a commit after the trust window", "lease.ErrLost")
	runtest.LetGo(h)
}
