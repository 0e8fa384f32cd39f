package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestStartIsCreateOrReturn(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	e := runtest.Envelope()
	first, replay, err := run.Start(t.Context(), pool, e)
	require.NoError(t, err)
	require.False(t, replay)
	again, replay, err := run.Start(t.Context(), pool, e)
	require.NoError(t, err)
	require.True(t, replay)
	require.Equal(t, first.RunKey, again.RunKey)
	require.Equal(t, []string{"run.accepted"}, runtest.Types(t, pool, first))

	stranger := int64(2)
	for name, other := range map[string]func(*run.Envelope){
		"another owner":  func(e *run.Envelope) { e.UserID = &stranger },
		"another thread": func(e *run.Envelope) { e.ThreadID = "elsewhere" },
		"other limits":   func(e *run.Envelope) { e.Limits = &run.Limits{MaxSteps: 1} },
		"kept open":      func(e *run.Envelope) { e.KeepOpen = true },
	} {
		changed := e
		other(&changed)
		_, _, err := run.Start(t.Context(), pool, changed)
		require.True(t, fault.Is(err, api.RunConflict), name)
	}
}

func TestConcurrentStartsMakeOneRun(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	e := runtest.Envelope()
	var wg sync.WaitGroup
	created := make(chan struct{}, 20)
	for range 20 {
		wg.Go(func() {
			_, replay, err := run.Start(t.Context(), pool, e)
			if err != nil {
				t.Error(err)
			} else if !replay {
				created <- struct{}{}
			}
		})
	}
	wg.Wait()
	require.Len(t, created, 1)
}

func TestGuestsWhoShareAUserDoNotSeeEachOther(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	user := int64(9)
	start := func(guest string) db.Run {
		e := runtest.Envelope()
		e.UserID, e.GuestScope, e.AuthenticatedSession = &user, &guest, false
		return runtest.Start(t, pool, e)
	}
	a, b := start("guest-a"), start("guest-b")
	_, err := run.Get(t.Context(), pool, run.OwnerOf(&user, "guest-a"), a.RunID)
	require.NoError(t, err)
	for _, who := range []run.Owner{run.OwnerOf(&user, "guest-b"), run.OwnerOf(&user, ""), run.OwnerOf(nil, "9"), ""} {
		_, err := run.Get(t.Context(), pool, who, a.RunID)
		require.True(t, fault.Is(err, api.RunNotFound), who)
	}
	_, missing := run.Get(t.Context(), pool, run.OwnerOf(&user, "guest-b"), "no-such-run")
	_, foreign := run.Get(t.Context(), pool, run.OwnerOf(&user, "guest-b"), a.RunID)
	require.Equal(t, missing, foreign, "not there and not yours are the same answer")

	runs, _, err := run.List(t.Context(), pool, run.OwnerOf(&user, "guest-b"), run.Filter{Limit: 10})
	require.NoError(t, err)
	require.Len(t, runs, 1)
	require.Equal(t, b.RunID, runs[0].RunID)
}

func TestAListPages(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	user := int64(1)
	var want []string
	for range 7 {
		want = append([]string{runtest.Run(t, pool).RunID}, want...)
	}
	var got []string
	f := run.Filter{Limit: 3}
	for {
		runs, next, err := run.List(t.Context(), pool, run.OwnerOf(&user, ""), f)
		require.NoError(t, err)
		for _, r := range runs {
			got = append(got, r.RunID)
		}
		if next == nil {
			break
		}
		f.Before = next
	}
	require.Equal(t, want, got)
}

func TestAFrameIsAcceptedOnce(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	f := runtest.UserMessage("f1", "Hi")
	first, err := run.AppendFrame(t.Context(), pool, p.Log, r, f)
	require.NoError(t, err)
	require.Equal(t, run.Accepted{PayloadHash: first.PayloadHash, Seq: 2}, first)

	respelled := f
	respelled.Payload = json.RawMessage(`{ "text" : "\u0048i" }`)
	again, err := run.AppendFrame(t.Context(), pool, p.Log, r, respelled)
	require.NoError(t, err)
	require.Equal(t, run.Accepted{Replay: true, PayloadHash: first.PayloadHash, Seq: 2}, again, "the same content in other bytes")

	for name, other := range map[string]run.Frame{
		"payload": runtest.UserMessage("f1", "Ho"),
		"type":    {FrameID: "f1", Type: "tick", Payload: f.Payload},
		"source":  {FrameID: "f1", Type: f.Type, Payload: f.Payload, Source: &run.FrameSource{Kind: "cron"}},
	} {
		_, err := run.AppendFrame(t.Context(), pool, p.Log, r, other)
		require.True(t, fault.Is(err, api.FrameConflict), name)
		require.ErrorContains(t, err, first.PayloadHash, name)
	}
	require.Equal(t, []string{"run.accepted", "frame.appended"}, runtest.Types(t, pool, r))
}

func TestTheSameFrameSentAtOnceIsOneFrame(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	a, b := runtest.NewProcess(t, pool), runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	var wg sync.WaitGroup
	fresh := make(chan struct{}, 40)
	for range 20 {
		for _, p := range []*runtest.Process{a, b} {
			wg.Go(func() {
				got, err := run.AppendFrame(t.Context(), pool, p.Log, r, runtest.UserMessage("f1", "Hi"))
				if err != nil {
					t.Error(err)
				} else if !got.Replay {
					fresh <- struct{}{}
				}
			})
		}
	}
	wg.Wait()
	require.Len(t, fresh, 1)
	require.Equal(t, []string{"run.accepted", "frame.appended"}, runtest.Types(t, pool, r))
}

func end(t *testing.T, p *runtest.Process, r db.Run, status string) error {
	t.Helper()
	_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: func(h runlog.Head) (runlog.Change, error) {
		return run.Finish(r, h, runlog.Change{}, run.End{Status: status, ReasonClass: "completed", Reason: "test"})
	}})
	return err
}

func TestAFinishedRunTakesNoFrameAndKeepsItsAnswers(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hi")
	require.ErrorIs(t, end(t, p, r, "completed"), run.ErrFramesWait, "an accepted frame is executed or was refused")
	require.NoError(t, end(t, p, r, "failed"))
	_, err := run.AppendFrame(t.Context(), pool, p.Log, r, runtest.UserMessage("f2", "Ho"))
	require.True(t, fault.Is(err, api.RunFinished))
	again, err := run.AppendFrame(t.Context(), pool, p.Log, r, runtest.UserMessage("f1", "Hi"))
	require.NoError(t, err)
	require.True(t, again.Replay)
	canceled, err := run.Cancel(t.Context(), p.Log, r, "test", "")
	require.NoError(t, err)
	require.Equal(t, run.Canceled{Status: "failed", Replay: true}, canceled)
}

// However frames, repeats, cancels and ends follow one another, and however
// many come at once, a run ends once and nothing reopens it.
func TestARunEndsOnce(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	rapid.Check(t, func(rt *rapid.T) {
		r := runtest.Run(t, pool)
		var wg sync.WaitGroup
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			frame := rapid.SampledFrom([]string{"f1", "f2"}).Draw(rt, "frame")
			do := rapid.SampledFrom([]func(){
				func() { _, _ = run.AppendFrame(t.Context(), pool, p.Log, r, runtest.UserMessage(frame, "Hi")) },
				func() { _, _ = run.Cancel(t.Context(), p.Log, r, "test", "") },
				func() { _ = end(t, p, r, "completed") },
				func() { _ = end(t, p, r, "canceled") },
			}).Draw(rt, "do")
			if rapid.Bool().Draw(rt, "at once") {
				wg.Go(do)
			} else {
				do()
			}
		}
		wg.Wait()
		_ = end(t, p, r, "failed")
		types := runtest.Types(t, pool, r)
		ends := 0
		for i, kind := range types {
			if kind == event.TypeRunFinished {
				ends++
				if i != len(types)-2 || types[i+1] != event.TypeStreamClosed {
					rt.Fatalf("only stream.closed follows the end: %v", types)
				}
			}
		}
		row, err := run.ByKey(context.Background(), pool, r.RunKey)
		if err != nil || ends != 1 || !runlog.Terminal(row.Status) {
			rt.Fatalf("%d ends, status %s, %v: %v", ends, row.Status, err, types)
		}
	})
}

// Runs that only wait cost the executors nothing, however many there are.
func TestRunnableRunsAreFoundAmongManyThatWait(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	_, err := pool.Exec(t.Context(), `
		INSERT INTO runs (run_key, run_id, thread_id, user_id, authenticated_session, request_hash, status, keep_open, due_at)
		SELECT gen_random_uuid(), 'waiting-' || n, 't', 1, true, '', 'waiting', true, clock_timestamp() + n * interval '1 hour'
		FROM generate_series(1, 20000) n`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `ANALYZE runs`)
	require.NoError(t, err)
	r := runtest.Run(t, pool)
	found, err := run.Runnable(t.Context(), pool, 10, math.MaxInt64)
	require.NoError(t, err)
	require.Empty(t, found, "a run without a frame has nothing to do")
	p.Message(t, r, "f1", "Hi")
	found, err = run.Runnable(t.Context(), pool, 10, math.MaxInt64)
	require.NoError(t, err)
	require.Equal(t, []db.RunListRunnableRow{{RunKey: r.RunKey}}, found)
	_, err = pool.Exec(t.Context(), `UPDATE runs SET due_at = clock_timestamp() WHERE run_id = 'waiting-7'`)
	require.NoError(t, err)
	found, err = run.Runnable(t.Context(), pool, 10, math.MaxInt64)
	require.NoError(t, err)
	require.Len(t, found, 2, "one has waited until its time was up")

	rows, err := pool.Query(t.Context(), `EXPLAIN SELECT r.run_key
		FROM (SELECT run_key FROM runs WHERE runnable
			UNION ALL SELECT run_key FROM runs WHERE NOT runnable AND due_at < statement_timestamp()) r
		LEFT JOIN run_leases l USING (run_key)
		WHERE (l.run_key IS NULL OR l.lease_expires_at < clock_timestamp())
		AND (l.run_key IS NULL OR l.released OR l.lost_count + 1 <= 1) ORDER BY r.run_key LIMIT 10`)
	require.NoError(t, err)
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	for _, index := range []string{"runs_runnable", "Index Cond: (due_at < statement_timestamp())"} {
		require.Contains(t, strings.Join(plan, "\n"), index)
	}
	require.NotContains(t, strings.Join(plan, "\n"), "Seq Scan on runs")
}

// Requests without client tools hash as they always did.
func TestClientToolsArePartOfTheRequest(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	plain := runtest.Envelope()
	r := runtest.Start(t, pool, plain)
	require.Nil(t, r.ClientTools)
	want, err := canon.HashJSON(map[string]any{
		"runId": plain.RunID, "threadId": plain.ThreadID, "userId": *plain.UserID, "authenticatedSession": true, "keepOpen": false,
	})
	require.NoError(t, err)
	require.Equal(t, want, r.RequestHash)

	e := runtest.Envelope()
	e.ClientTools = json.RawMessage(`[{"name":"ask_user","description":"Asks.","inputSchema":{"type":"object"}}]`)
	r = runtest.Start(t, pool, e)
	require.JSONEq(t, string(e.ClientTools), string(r.ClientTools))
	other := e
	other.ClientTools = nil
	_, _, err = run.Start(t.Context(), pool, other)
	require.True(t, fault.Is(err, api.RunConflict))
}

// What goes beside a frame is there with it, or not at all.
func TestWhatGoesBesideAFrameIsInItsCommit(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	f := runtest.UserMessage("f1", "Hi")
	odd := errors.New("odd")
	f.With = func(runlog.Head) (runlog.Change, error) { return runlog.Change{}, odd }
	_, err := run.AppendFrame(t.Context(), pool, p.Log, r, f)
	require.ErrorIs(t, err, odd)
	require.Equal(t, []string{"run.accepted"}, runtest.Types(t, pool, r))
	f.With = func(runlog.Head) (runlog.Change, error) {
		return runlog.Change{Events: []event.Event{event.RunWokenV1{Cause: "frame"}}}, nil
	}
	_, err = run.AppendFrame(t.Context(), pool, p.Log, r, f)
	require.NoError(t, err)
	require.Equal(t, []string{"run.accepted", "frame.appended", "run.woken"}, runtest.Types(t, pool, r))
}

// A secret in a frame is not stored; the same frame again is still the same.
func TestAFramesSecretsAreNotStored(t *testing.T) {
	t.Parallel()
	const secret = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	first := p.Message(t, r, "f1", "my token is "+secret)
	require.True(t, p.Message(t, r, "f1", "my token is "+secret).Replay)
	f, err := run.FrameByID(t.Context(), pool, r.RunKey, "f1")
	require.NoError(t, err)
	require.NotContains(t, string(f.Payload), secret)
	require.Contains(t, string(f.Payload), "my token is ")
	require.Equal(t, first.PayloadHash, f.PayloadHash)
	_, err = run.AppendFrame(t.Context(), pool, p.Log, r, runtest.UserMessage("f1", "my token is another"))
	require.True(t, fault.Is(err, api.FrameConflict))
}
