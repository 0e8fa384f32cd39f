package timeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/timeline"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

type hit struct {
	RunID, At, Type, Role, Excerpt string
	Seq                            int64
}

type found struct {
	Hits       []hit
	NextCursor string
	Truncated  bool
}

func callOf(r db.Run, input string) tool.Call {
	return tool.Call{RunKey: r.RunKey, RunID: r.RunID, ThreadID: r.ThreadID, Owner: r.Owner, Tool: timeline.Name, Input: json.RawMessage(input)}
}

// search makes a call as the runner would: input and output satisfy the schemas.
func search(t testing.TB, s *timeline.Search, r db.Run, input string) found {
	t.Helper()
	catalog, err := tool.NewCatalog(s)
	require.NoError(t, err)
	view, err := catalog.For(nil)
	require.NoError(t, err)
	require.Nil(t, view.CheckInput(timeline.Name, json.RawMessage(input)))
	res, err := s.Run(t.Context(), callOf(r, input), func(json.RawMessage) error { return nil })
	require.NoError(t, err)
	require.Nil(t, view.CheckOutput(timeline.Name, res.Output))
	var f found
	require.NoError(t, json.Unmarshal(res.Output, &f))
	return f
}

func refused(t testing.TB, s *timeline.Search, r db.Run, input string) *tool.Error {
	t.Helper()
	_, err := s.Run(t.Context(), callOf(r, input), func(json.RawMessage) error { return nil })
	var e *tool.Error
	require.ErrorAs(t, err, &e)
	return e
}

func said(text string) event.Event { return event.MessageFinishedV1{PartID: "p", Text: text} }

func asked(name string, input map[string]any) event.Event {
	return event.ToolRequestedV1{ToolCallID: "call_1", ToolName: name, Kind: "runtime", RequestedBy: "model", Input: input,
		ParamsHash: "sha256:" + strings.Repeat("0", 64), SettlementBoundary: "safe_retry", TimeoutMs: 1}
}

func answered(name string, output any) event.Event {
	return event.ToolFinishedV1{ToolCallID: "call_1", ToolName: name, State: "succeeded", Attempts: 1, Provider: "p", Output: output,
		ParamsHash: "sha256:" + strings.Repeat("0", 64), ReceiptID: "r"}
}

// beside starts a run of somebody in a thread.
func beside(t testing.TB, pool *pgxpool.Pool, thread string, user int64) db.Run {
	e := runtest.Envelope()
	e.ThreadID, e.UserID = thread, &user
	return runtest.Start(t, pool, e)
}

func TestWhatWasSaidAndDoneIsFound(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	s := &timeline.Search{Pool: pool}
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Where is the Äpfel \"invoice\" of Émile?\nIt has 100% of_all.")
	p.Append(t, r, said("The INVOICE is in the cellar."), asked("http.fetch", map[string]any{"url": "https://cellar.example", "n": 4711}),
		answered("http.fetch", map[string]any{"text": "a cellar with apples", "list": []any{"barrel"}}), asked(timeline.Name, map[string]any{"query": "cellar"}),
		answered(timeline.Name, map[string]any{"hits": []any{"cellar"}}), event.MessageDeltaV1{PartID: "p", Delta: "cellar"})

	_, err := run.AppendFrame(t.Context(), pool, p.Log, r, run.Frame{FrameID: "f2", Type: "tool_request", Payload: json.RawMessage(`{"tool":"timeline.search","input":{"query":"cellar"}}`)})
	require.NoError(t, err)
	_, err = run.AppendFrame(t.Context(), pool, p.Log, r, run.Frame{FrameID: "f3", Type: "door_bell", Payload: json.RawMessage(`{"who":"a postman"}`)})
	require.NoError(t, err)
	require.Equal(t, "event", search(t, s, r, `{"query":"postman"}`).Hits[0].Role)

	f := search(t, s, r, `{"query":"cellar"}`)
	require.False(t, f.Truncated)
	require.Empty(t, f.NextCursor)
	var types, roles []string
	for _, h := range f.Hits {
		types, roles = append(types, h.Type), append(roles, h.Role)
		require.Equal(t, r.RunID, h.RunID)
		at, err := time.Parse(time.RFC3339Nano, h.At)
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), at, time.Minute)
	}
	require.Equal(t, []string{"tool.finished", "tool.requested", "message.finished"}, types, "newest first, and no search among them")
	require.Equal(t, []string{"tool", "assistant", "assistant"}, roles)

	for query, n := range map[string]int{
		`invoice`: 2, `INVOICE cellar`: 1, `cellar barrel`: 1, `äpfel`: 1, `ÄPFEL ÉMILE`: 1, `öpfel`: 0, `é`: 1, `Ö`: 0, `émile?`: 1, `\"invoice\"`: 1, `100%`: 1, `of_all`: 1, `of%all`: 0, `ofxall`: 0,
		`4711`: 1, `tool_name`: 0, `nIt`: 0, `http.fetch`: 2, `\\`: 0, `\u0000 invoice`: 2, `'; DROP TABLE runs; --`: 0,
	} {
		require.Len(t, search(t, s, r, `{"query":"`+query+`"}`).Hits, n, query)
	}
	f = search(t, s, r, `{"query":"invoice","types":["frame.appended"]}`)
	require.Equal(t, "user", f.Hits[0].Role)
	require.Equal(t, `Where is the Äpfel "invoice" of Émile? It has 100% of_all.`, f.Hits[0].Excerpt)
	require.Len(t, search(t, s, r, fmt.Sprintf(`{"query":"invoice","fromSeq":%d}`, f.Hits[0].Seq+1)).Hits, 1)

	p.Append(t, r, said(strings.Repeat("long before ", 1000)+"needle"+strings.Repeat(" long after", 1000)),
		said(strings.Repeat("very large ", 200_000)+"haystack"+strings.Repeat(" very large", 1000)))
	f = search(t, s, r, `{"query":"needle"}`)
	require.Contains(t, f.Hits[0].Excerpt, "needle")
	require.Less(t, len(f.Hits[0].Excerpt), 300)
	require.True(t, strings.HasPrefix(f.Hits[0].Excerpt, "…") && strings.HasSuffix(f.Hits[0].Excerpt, "…"))
	require.Contains(t, search(t, s, r, `{"query":"haystack"}`).Hits[0].Excerpt, "haystack", "in an event of megabytes too")

	for _, input := range []string{
		`{"query":" \t "}`, `{"query":"a b c d e f g h i"}`, `{"query":"a","cursor":"x"}`, `{"query":"a","scope":"thread","fromSeq":3}`,
		`{"query":"a","scope":"run","cursor":"` + cursor(uuid.New(), 5) + `"}`,
	} {
		require.Equal(t, "tool_input_invalid", refused(t, s, r, input).Class, input)
	}
}

func cursor(key uuid.UUID, before byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	raw := append(key[:], 0, 0, 0, 0, 0, 0, 0, before)
	var b strings.Builder
	for i := 0; i < len(raw); i += 3 {
		n := uint32(raw[i])<<16 | uint32(raw[i+1])<<8 | uint32(raw[i+2])
		for shift := 18; shift >= 0; shift -= 6 {
			b.WriteByte(alphabet[n>>shift&63])
		}
	}
	return b.String()
}

func TestAThreadIsSearchedForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	s := &timeline.Search{Pool: pool}
	mine := []db.Run{beside(t, pool, "thread", 1), beside(t, pool, "thread", 1), beside(t, pool, "thread", 1)}
	theirs, elsewhere := beside(t, pool, "thread", 2), beside(t, pool, "other", 1)
	guest := runtest.Envelope()
	scope := "1"
	guest.ThreadID, guest.UserID, guest.GuestScope = "thread", nil, &scope
	visitor := runtest.Start(t, pool, guest)
	for _, r := range append(mine, theirs, elsewhere, visitor) {
		p.Append(t, r, said("the secret word of "+r.RunID))
	}
	var want []string
	for _, r := range slices.Backward(mine) {
		want = append(want, r.RunID)
	}
	ids := func(f found) (ids []string) {
		for _, h := range f.Hits {
			ids = append(ids, h.RunID)
		}
		return ids
	}
	require.Equal(t, want, ids(search(t, s, mine[0], `{"query":"secret","scope":"thread"}`)))
	require.Equal(t, want, ids(search(t, s, mine[1], `{"query":"secret"}`)), "the thread, unless it is told otherwise")
	require.Equal(t, want[1:2], ids(search(t, s, mine[1], `{"query":"secret","scope":"run"}`)))
	require.Equal(t, want[1:2], ids(search(t, s, mine[1], `{"query":"secret","fromSeq":1}`)), "a seq is one of a run")
	for _, r := range []db.Run{theirs, visitor} {
		for _, scope := range []string{"", `,"scope":"thread"`, `,"scope":"run"`} {
			require.Equal(t, []string{r.RunID}, ids(search(t, s, r, `{"query":"secret"`+scope+`}`)), "the thread's name opens nothing to %s", r.Owner)
		}
	}
	for _, r := range []db.Run{theirs, elsewhere} {
		require.Equal(t, want[1:], ids(search(t, s, mine[0], `{"query":"secret","scope":"thread","cursor":"`+cursor(mine[1].RunKey, 99)+`"}`)))
		f := search(t, s, mine[0], `{"query":"secret","scope":"thread","cursor":"`+cursor(r.RunKey, 99)+`"}`)
		require.NotContains(t, ids(f), r.RunID, "a cursor opens nothing")
		require.Equal(t, "tool_input_invalid", refused(t, s, mine[0], `{"query":"secret","scope":"run","cursor":"`+cursor(r.RunKey, 99)+`"}`).Class)
	}
}

// Page by page every hit comes once, newest first, whatever the bounds are.
func TestPagesJoinToTheWhole(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	var runs []db.Run
	var want []string
	for i := range 4 {
		r := beside(t, pool, "thread", 1)
		runs = append(runs, r)
		var events []event.Event
		for n := range 300 {
			text := "nothing"
			if n%(7+i) == 0 {
				text = "apple"
			}
			events = append(events, said(text), event.MessageStartedV1{PartID: "x"})
		}
		p.Append(t, r, events...)
	}
	all := search(t, &timeline.Search{Pool: pool}, runs[0], `{"query":"nothing","scope":"thread","limit":1}`)
	require.Len(t, all.Hits, 1)
	for i, r := range slices.Backward(runs) {
		for n := 299; n >= 0; n-- {
			if n%(7+i) == 0 {
				want = append(want, fmt.Sprint(r.RunID, 2+2*n))
			}
		}
	}
	for _, s := range []*timeline.Search{{}, {MaxEvents: 1}, {MaxEvents: 450}, {MaxRuns: 1}, {MaxRuns: 2, MaxEvents: 700}} {
		s.Pool = pool
		for _, limit := range []int{1, 13, 50} {
			var got []string
			next, truncated := "", 0
			for {
				f := search(t, s, runs[1], fmt.Sprintf(`{"query":"apple","scope":"thread","limit":%d%s}`, limit, next))
				for _, h := range f.Hits {
					got = append(got, fmt.Sprint(h.RunID, h.Seq))
				}
				if f.Truncated {
					truncated++
				}
				if f.NextCursor == "" {
					break
				}
				next = `,"cursor":"` + f.NextCursor + `"`
			}
			require.Equal(t, want, got, "%+v %d", s, limit)
			if bounded := s.MaxEvents+s.MaxRuns > 0; !bounded || limit == 50 {
				require.Equal(t, bounded, truncated > 0, "%+v %d", s, limit)
			}
		}
	}
}

// What was folded or let go changes no answer but by what is gone.
func TestFoldedAndForgottenLogs(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	s := &timeline.Search{Pool: pool}
	r := runtest.Run(t, pool)
	p.Append(t, r, event.MessageStartedV1{PartID: "p"}, event.MessageDeltaV1{PartID: "p", Delta: "ap"}, event.MessageDeltaV1{PartID: "p", Delta: "ple"},
		said("apple"), event.RunFinishedV1{Status: "completed", ReasonClass: "completed", Reason: "done with apple"}, event.StreamClosedV1{})
	k := runlog.Retention{Pool: pool, Deltas: time.Nanosecond, Events: time.Nanosecond}
	before := search(t, s, r, `{"query":"apple"}`)
	require.Len(t, before.Hits, 2)
	_, err := runlog.Retention{Pool: pool}.Fold(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, search(t, s, r, `{"query":"apple"}`))
	_, err = k.AgeOut(t.Context())
	require.NoError(t, err)
	require.Equal(t, found{Hits: []hit{}}, search(t, s, r, `{"query":"apple"}`))
	require.Equal(t, found{Hits: []hit{}}, search(t, s, r, `{"query":"apple","scope":"thread"}`))
}

// A question that cannot be answered in time ends by itself, and says so.
func TestASearchDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	p.Append(t, r, said("apple"))
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE run_log IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)
	s := &timeline.Search{Pool: pool, Within: 50 * time.Millisecond}
	f := search(t, s, r, `{"query":"apple"}`)
	require.True(t, f.Truncated)
	require.NotEmpty(t, f.NextCursor)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Len(t, search(t, s, r, `{"query":"apple","cursor":"`+f.NextCursor+`"}`).Hits, 1)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Run(ctx, callOf(r, `{"query":"apple"}`), nil)
	require.ErrorIs(t, err, context.Canceled)
}

// explainer notes the plan of each question before it asks it.
type explainer struct {
	db.DBTX
	t     testing.TB
	plans []string
}

func (e *explainer) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := e.DBTX.Query(ctx, "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) "+sql, args...)
	require.NoError(e.t, err)
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(e.t, err)
	e.plans = append(e.plans, strings.Join(plan, "\n"))
	return e.DBTX.Query(ctx, sql, args...)
}

// However much others have, a search reads the thread's runs and the newest events
// of the one that it looks at.
func TestASearchReadsNothingOfOthers(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := beside(t, pool, "thread", 1)
	var events []event.Event
	for i := range 3000 {
		events = append(events, said(fmt.Sprint("word ", i)))
	}
	p.Append(t, r, events...)
	_, err := pool.Exec(t.Context(), `
		INSERT INTO runs (run_key, run_id, thread_id, user_id, authenticated_session, request_hash)
		SELECT gen_random_uuid(), 'other-' || i, 'thread-' || i % 500, 2 + i % 50, true, '' FROM generate_series(1, 20000) i`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `
		INSERT INTO run_log SELECT run_key, i, 'message.finished', 1, '{"text":"word"}', sha256(''), sha256('')
		FROM runs, generate_series(1, 3) i WHERE run_id LIKE 'other-%'`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), "ANALYZE runs, run_log")
	require.NoError(t, err)

	e := &explainer{DBTX: pool, t: t}
	runs, err := runlog.RunsOfThread(t.Context(), e, "thread", r.Owner, uuid.Max, 51)
	require.NoError(t, err)
	require.Len(t, runs, 1)
	rows, err := runlog.Search(t.Context(), e, db.RunLogSearchParams{
		RunKey: r.RunKey, FromSeq: 1, BeforeSeq: 1 << 40, MaxEvents: 200, MaxHits: 51, EventTypes: []string{"message.finished"}, Words: []string{"word"},
	})
	require.NoError(t, err)
	require.Len(t, rows, 51)
	require.EqualValues(t, 200, rows[0].LookedAt)
	for _, plan := range e.plans {
		require.NotContains(t, plan, "Seq Scan", plan)
		require.NotContains(t, plan, "rows=3000", plan)
	}
	require.Contains(t, e.plans[1], "rows=200", e.plans[1])
}
