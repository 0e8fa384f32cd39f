package approval_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func ask(call string, lasts time.Duration) approval.Ask {
	return approval.Ask{
		Kind: approval.ToolCall, ToolCallID: call, Title: "Send an e-mail", Decider: approval.ByOwner,
		Request: json.RawMessage(`{"tool":"email.send"}`), ArgsHash: canon.Hash([]byte(call)), PolicyHash: canon.Hash([]byte("policy")),
		ReasonCode: "policy_denied.approval_required", For: lasts,
	}
}

// request puts a question into a run's log and answers its row.
func request(t testing.TB, p *runtest.Process, r db.Run, a approval.Ask) db.Approval {
	t.Helper()
	change, err := approval.Request(r, a)
	require.NoError(t, err)
	_, err = p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID,
		Decide: func(runlog.Head) (runlog.Change, error) { return change, nil }})
	require.NoError(t, err)
	id, err := approval.ID(r.RunID, a)
	require.NoError(t, err)
	row, err := approval.Get(t.Context(), p.Pool, run.Owner(r.Owner), id)
	require.NoError(t, err)
	return row
}

func owner(r db.Run) approval.Decider {
	return approval.Decider{Owner: run.Owner(r.Owner), Actor: "laravel"}
}

var yes, no = approval.Decision{State: approval.Approved}, approval.Decision{State: approval.Rejected}

// decidedEvents are the approval.decided events of some runs, by approval.
func decidedEvents(t testing.TB, pool *pgxpool.Pool, keys ...uuid.UUID) map[string][]event.ApprovalDecidedV1 {
	t.Helper()
	rows, err := runlog.OfTypes(t.Context(), pool, keys, event.TypeApprovalDecided)
	require.NoError(t, err)
	told := map[string][]event.ApprovalDecidedV1{}
	for _, row := range rows {
		e, err := runlog.Decode(row)
		require.NoError(t, err)
		d := e.(event.ApprovalDecidedV1)
		told[d.ApprovalID] = append(told[d.ApprovalID], d)
	}
	return told
}

func requireFault(t *testing.T, err error, code api.ErrorCode) {
	t.Helper()
	require.Truef(t, fault.Is(err, code), "want %s, have %v", code, err)
}

func requireClosed(t *testing.T, err error, state string) {
	t.Helper()
	var closed *approval.ClosedError
	require.ErrorAs(t, err, &closed)
	require.Equal(t, state, closed.Approval.State)
}

// overdue lets an approval's time be over.
func overdue(t *testing.T, pool *pgxpool.Pool, a db.Approval) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `UPDATE approvals SET expires_at = clock_timestamp() WHERE approval_id = $1`, a.ApprovalID)
	require.NoError(t, err)
}

func TestADecisionIsMadeOnce(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	a := request(t, p, r, ask("call_1", time.Hour))
	require.Equal(t, approval.Pending, a.State)

	d := yes
	d.ArgsHash, d.PolicyHash, d.Reason = a.ArgsHash, a.PolicyHash, "it is mine"
	first, replay, err := approval.Decide(t.Context(), pool, p.Log, a.ApprovalID, owner(r), d)
	require.NoError(t, err)
	require.False(t, replay)
	require.Equal(t, approval.Approved, first.State)
	require.Equal(t, r.Owner, *first.DecidedBy)

	again := d
	again.Reason = "another sentence"
	second, replay, err := approval.Decide(t.Context(), pool, p.Log, a.ApprovalID, owner(r), again)
	require.NoError(t, err)
	require.True(t, replay)
	require.Equal(t, first, second, "the first decision stands as it was")

	_, _, err = approval.Decide(t.Context(), pool, p.Log, a.ApprovalID, owner(r), no)
	requireClosed(t, err, approval.Approved)
	told := decidedEvents(t, pool, r.RunKey)[a.ApprovalID]
	require.Len(t, told, 1)
	require.EqualValues(t, approval.Approved, told[0].State)
	require.Equal(t, "it is mine", *told[0].Reason)
}

func TestADecisionMovesItsRunOn(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	for i, move := range []func(db.Run, db.Approval) error{
		func(r db.Run, a db.Approval) error {
			_, _, err := approval.Decide(t.Context(), pool, p.Log, a.ApprovalID, owner(r), no)
			return err
		},
		func(_ db.Run, a db.Approval) error {
			overdue(t, pool, a)
			_, err := approval.Expire(t.Context(), pool, p.Log)
			return err
		},
	} {
		r := runtest.Run(t, pool)
		a := request(t, p, r, ask(fmt.Sprint("call_", i), time.Hour))
		_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID,
			Decide: func(runlog.Head) (runlog.Change, error) {
				return runlog.Change{Events: []event.Event{event.RunWaitingV1{WaitsFor: "approval"}}, Status: "waiting",
					Rows: []runlog.Row{run.SetStatus(r, "waiting")}}, nil
			}})
		require.NoError(t, err)
		require.NoError(t, move(r, a))
		found, err := run.Runnable(t.Context(), pool, 10, 0)
		require.NoError(t, err)
		require.Contains(t, found, db.RunListRunnableRow{RunKey: r.RunKey})
	}
}

func TestOnlyTheDeciderDecides(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	a := request(t, p, r, ask("call_1", time.Hour))
	forOperators := ask("call_2", time.Hour)
	forOperators.Decider = approval.ByOperator
	b := request(t, p, r, forOperators)

	stranger := approval.Decider{Owner: "user:2"}
	operator := approval.Decider{Owner: run.Everybody, Operator: true, Actor: "ops"}
	for _, c := range []struct {
		id   string
		by   approval.Decider
		code api.ErrorCode
	}{
		{a.ApprovalID, stranger, api.ApprovalNotFound},
		{b.ApprovalID, stranger, api.ApprovalNotFound},
		{"appr_000000000000000000000000", owner(r), api.ApprovalNotFound},
		{a.ApprovalID, approval.Decider{}, api.ApprovalNotFound},
		{a.ApprovalID, operator, api.Forbidden},
		{b.ApprovalID, owner(r), api.Forbidden},
	} {
		_, _, err := approval.Decide(t.Context(), pool, p.Log, c.id, c.by, yes)
		requireFault(t, err, c.code)
	}
	require.Empty(t, decidedEvents(t, pool, r.RunKey))

	got, _, err := approval.Decide(t.Context(), pool, p.Log, b.ApprovalID, operator, yes)
	require.NoError(t, err)
	require.Equal(t, "operator:ops", *got.DecidedBy)
}

// The statement itself checks who decides and on what, whatever was read before.
func TestTheStatementTrustsNobody(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	a := request(t, p, r, ask("call_1", time.Hour))
	other := canon.Hash([]byte("other"))
	who := "x"
	for _, change := range []func(*db.ApprovalDecideParams){
		func(d *db.ApprovalDecideParams) { d.Owner = "user:2" },
		func(d *db.ApprovalDecideParams) { d.Owner, d.Operator = "*", true },
		func(d *db.ApprovalDecideParams) { d.ArgsHash = &other },
		func(d *db.ApprovalDecideParams) { d.PolicyHash = &other },
		func(d *db.ApprovalDecideParams) { d.ApprovalID = "appr_000000000000000000000000" },
	} {
		d := db.ApprovalDecideParams{ApprovalID: a.ApprovalID, State: approval.Approved, DecidedBy: &who, Owner: r.Owner}
		change(&d)
		require.True(t, approval.Moved(db.New(pool).ApprovalDecide(t.Context(), d)))
	}
}

func TestADecisionBindsWhatWasShown(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	a := request(t, p, r, ask("call_1", time.Hour))
	other := canon.Hash([]byte("other"))
	for _, d := range []approval.Decision{
		{State: approval.Approved, ArgsHash: other},
		{State: approval.Approved, ArgsHash: a.ArgsHash, PolicyHash: other},
	} {
		_, _, err := approval.Decide(t.Context(), pool, p.Log, a.ApprovalID, owner(r), d)
		requireFault(t, err, api.ApprovalChanged)
	}
	require.Empty(t, decidedEvents(t, pool, r.RunKey))
}

func TestTimeIsNotARejection(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	late := request(t, p, r, ask("call_1", time.Hour))
	swept := request(t, p, r, ask("call_2", time.Hour))
	early := request(t, p, r, ask("call_3", time.Hour))
	overdue(t, pool, late)
	for _, d := range []approval.Decision{no, yes, no} {
		_, _, err := approval.Decide(t.Context(), pool, p.Log, late.ApprovalID, owner(r), d)
		requireClosed(t, err, approval.Expired)
	}
	overdue(t, pool, swept)
	for _, want := range []int64{1, 0} {
		n, err := approval.Expire(t.Context(), pool, p.Log)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	told := decidedEvents(t, pool, r.RunKey)
	require.Len(t, told, 2)
	for _, id := range []string{late.ApprovalID, swept.ApprovalID} {
		require.Len(t, told[id], 1)
		require.EqualValues(t, approval.Expired, told[id][0].State)
		require.Nil(t, told[id][0].DecidedBy)
	}
	row, err := approval.Get(t.Context(), pool, run.Owner(r.Owner), early.ApprovalID)
	require.NoError(t, err)
	require.Equal(t, approval.Pending, row.State)
}

func TestAnEndedRunAsksNothing(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	end := func(r db.Run) {
		p.Append(t, r, event.RunFinishedV1{Status: "canceled", ReasonClass: "cancel_requested", Reason: "stop"}, event.StreamClosedV1{})
	}
	r := runtest.Run(t, pool)
	a := request(t, p, r, ask("call_1", time.Hour))
	end(r)
	_, _, err := approval.Decide(t.Context(), pool, p.Log, a.ApprovalID, owner(r), yes)
	requireClosed(t, err, approval.Canceled)

	r2 := runtest.Run(t, pool)
	b := request(t, p, r2, ask("call_1", time.Hour))
	end(r2)
	n, err := approval.Expire(t.Context(), pool, p.Log)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	row, err := approval.Get(t.Context(), pool, run.Owner(r2.Owner), b.ApprovalID)
	require.NoError(t, err)
	require.Equal(t, approval.Canceled, row.State)
}

func TestARunsEndCancelsWhatItAsks(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	a := request(t, p, r, ask("call_1", time.Hour))
	pending, err := approval.OfRun(t.Context(), pool, r.RunKey)
	require.NoError(t, err)
	b := request(t, p, r, ask("call_2", time.Hour))
	cancel := func(known []db.Approval) error {
		_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID,
			Decide: func(runlog.Head) (runlog.Change, error) {
				return approval.CancelOf(r, known, "the run was canceled"), nil
			}})
		return err
	}
	require.True(t, approval.Moved(cancel(pending)), "another was asked since")
	require.NoError(t, cancel(append(pending, b)))
	told := decidedEvents(t, pool, r.RunKey)
	require.Len(t, told, 2)
	for _, x := range []db.Approval{a, b} {
		row, err := approval.Get(t.Context(), pool, run.Owner(r.Owner), x.ApprovalID)
		require.NoError(t, err)
		require.Equal(t, approval.Canceled, row.State)
		require.EqualValues(t, approval.Canceled, told[x.ApprovalID][0].State)
	}
	require.NoError(t, cancel(nil), "nothing is pending")
}

func TestAQuestionIsTakenBackOnce(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	a := request(t, p, r, ask("call_1", time.Hour))
	request(t, p, r, ask("call_2", time.Hour))
	cancel := func() error {
		_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID,
			Decide: func(runlog.Head) (runlog.Change, error) { return approval.Cancel(a, "the call was canceled"), nil }})
		return err
	}
	require.NoError(t, cancel())
	require.True(t, approval.Moved(cancel()))
	_, _, err := approval.Decide(t.Context(), pool, p.Log, a.ApprovalID, owner(r), yes)
	requireClosed(t, err, approval.Canceled)
	n, err := approval.CountPending(t.Context(), pool, run.Owner(r.Owner))
	require.NoError(t, err)
	require.EqualValues(t, 1, n, "the other waits on")
	require.Len(t, decidedEvents(t, pool, r.RunKey), 1)
}

func TestASecretInAReasonIsNotStored(t *testing.T) {
	t.Parallel()
	const secret = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	a := request(t, p, r, ask("call_1", time.Hour))
	d := no
	d.Reason = "not with " + secret
	row, _, err := approval.Decide(t.Context(), pool, p.Log, a.ApprovalID, owner(r), d)
	require.NoError(t, err)
	require.NotContains(t, *row.DecisionReason, secret)
	require.NotContains(t, *decidedEvents(t, pool, r.RunKey)[a.ApprovalID][0].Reason, secret)
}

func TestTheSameQuestionHasTheSameID(t *testing.T) {
	t.Parallel()
	a := ask("call_1", time.Hour)
	one, err := approval.ID("r1", a)
	require.NoError(t, err)
	require.Regexp(t, `^appr_[0-9a-f]{24}$`, one)
	same := a
	same.For, same.Title = time.Minute, "x"
	again, err := approval.ID("r1", same)
	require.NoError(t, err)
	require.Equal(t, one, again)
	for i, other := range []approval.Ask{a, a, a} {
		runID := "r1"
		switch i {
		case 0:
			runID = "r2"
		case 1:
			other.ArgsHash = canon.Hash([]byte("other"))
		case 2:
			other.Kind = approval.RaiseBudget
		}
		id, err := approval.ID(runID, other)
		require.NoError(t, err)
		require.NotEqual(t, one, id)
	}
}

func TestAnInboxHasItsOwnersQuestions(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	mine, also := runtest.Run(t, pool), runtest.Run(t, pool)
	other := runtest.Envelope()
	*other.UserID = 2
	theirs := runtest.Start(t, pool, other)
	var want []string
	for i := range 3 {
		want = append(want, request(t, p, mine, ask(fmt.Sprint("call_", i), time.Hour)).ApprovalID)
	}
	want = append(want, request(t, p, also, ask("call_1", time.Hour)).ApprovalID)
	foreign := request(t, p, theirs, ask("call_1", time.Hour)).ApprovalID

	var got []string
	for before, page := (*approval.Place)(nil), 0; page == 0 || before != nil; page++ {
		rows, next, err := approval.List(t.Context(), pool, run.Owner(mine.Owner), approval.Filter{Limit: 3, Before: before})
		require.NoError(t, err)
		for _, a := range rows {
			got = append([]string{a.ApprovalID}, got...)
		}
		before = next
	}
	require.Equal(t, want, got)
	ofThread, _, err := approval.List(t.Context(), pool, run.Owner(mine.Owner), approval.Filter{Limit: 9, ThreadID: &also.ThreadID})
	require.NoError(t, err)
	require.Len(t, ofThread, 1)
	all, _, err := approval.List(t.Context(), pool, run.Everybody, approval.Filter{Limit: 9})
	require.NoError(t, err)
	require.Len(t, all, 5)
	require.Equal(t, foreign, all[0].ApprovalID)
	_, _, err = approval.Decide(t.Context(), pool, p.Log, want[0], owner(mine), yes)
	require.NoError(t, err)
	state := approval.Approved
	some, _, err := approval.List(t.Context(), pool, run.Owner(mine.Owner), approval.Filter{Limit: 9, State: &state})
	require.NoError(t, err)
	require.Len(t, some, 1)
}

// Many times two people decide, one yes and one no, at about the moment at which
// the time is over, while two processes sweep. Each approval ends once, and
// everybody was told how. APPROVAL_RACE_PAIRS says how many times; make
// approval-race takes 10,000.
func TestDecisionsRaceWithTheClock(t *testing.T) {
	t.Parallel()
	const perRun, atOnce = 40, 200
	pairs := 400
	if env := os.Getenv("APPROVAL_RACE_PAIRS"); env != "" {
		var err error
		pairs, err = strconv.Atoi(env)
		require.NoError(t, err, "APPROVAL_RACE_PAIRS is a number")
	}
	runs := max(1, pairs/perRun)
	pool := dbtest.New(t)
	here, there := runtest.NewProcess(t, pool), runtest.NewProcess(t, pool)

	var (
		all   []db.Approval
		keys  []uuid.UUID
		byRun = map[uuid.UUID]db.Run{}
	)
	for range runs {
		r := runtest.Run(t, pool)
		byRun[r.RunKey] = r
		keys = append(keys, r.RunKey)
		var change runlog.Change
		for i := range perRun {
			one, err := approval.Request(r, ask(fmt.Sprint("call_", i), time.Hour))
			require.NoError(t, err)
			change.Events, change.Rows = append(change.Events, one.Events...), append(change.Rows, one.Rows...)
		}
		_, err := here.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID,
			Decide: func(runlog.Head) (runlog.Change, error) { return change, nil }})
		require.NoError(t, err)
		rows, err := approval.OfRun(t.Context(), pool, r.RunKey)
		require.NoError(t, err)
		all = append(all, rows...)
	}
	require.Len(t, all, runs*perRun)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })

	answers := make([][2]string, len(all))
	lasts := 200 * time.Millisecond
	for from := 0; from < len(all); from += atOnce {
		until := min(from+atOnce, len(all))
		lasts = raceOnce(t, here, there, byRun, all[from:until], answers[from:until], lasts)
	}

	told := decidedEvents(t, pool, keys...)
	ended := map[string]int{}
	for i, a := range all {
		row, err := approval.Get(t.Context(), pool, run.Everybody, a.ApprovalID)
		require.NoError(t, err)
		ended[row.State]++
		require.NotEqual(t, approval.Pending, row.State)
		require.Equal(t, [2]string{row.State, row.State}, answers[i], "the answers are what happened")
		require.Len(t, told[a.ApprovalID], 1, "one event")
		require.EqualValues(t, row.State, told[a.ApprovalID][0].State, "the event is what happened")
		require.Equal(t, row.State == approval.Expired, row.DecidedBy == nil)
	}
	t.Logf("ended: %v", ended)
	for _, state := range []string{approval.Approved, approval.Rejected, approval.Expired} {
		require.Greater(t, ended[state], len(all)/100, "a race that one side always wins is none: %v", ended)
	}
	for _, key := range keys {
		_, err := runlog.Verify(t.Context(), pool, key, byRun[key].RunID)
		require.NoError(t, err)
	}
}

// raceOnce decides each of some approvals twice, while their times run out: all
// within as long as it took to decide before. It says how long it took this time.
func raceOnce(t *testing.T, here, there *runtest.Process, byRun map[uuid.UUID]db.Run, some []db.Approval, answers [][2]string, before time.Duration) time.Duration {
	t.Helper()
	ids := make([]string, len(some))
	for i, a := range some {
		ids[i] = a.ApprovalID
	}
	_, err := here.Pool.Exec(t.Context(),
		`UPDATE approvals SET expires_at = clock_timestamp() + random() * $2::interval WHERE approval_id = ANY($1)`, ids, before)
	require.NoError(t, err)
	began := time.Now()

	var decided atomic.Bool
	var sweeps, people errgroup.Group
	for _, p := range []*runtest.Process{here, there} {
		sweeps.Go(func() error {
			for {
				last := decided.Load()
				if n, err := approval.Expire(t.Context(), p.Pool, p.Log); err != nil {
					return err
				} else if last && n == 0 {
					return nil
				}
			}
		})
	}
	people.SetLimit(64)
	for i, a := range some {
		for n, d := range []approval.Decision{yes, no} {
			p := []*runtest.Process{here, there}[(i+n)%2]
			people.Go(func() error {
				row, _, err := approval.Decide(t.Context(), p.Pool, p.Log, a.ApprovalID, owner(byRun[a.RunKey]), d)
				if closed := (*approval.ClosedError)(nil); errors.As(err, &closed) {
					row, err = closed.Approval, nil
				}
				answers[i][n] = row.State
				return err
			})
		}
	}
	require.NoError(t, people.Wait())
	took := time.Since(began)
	decided.Store(true)
	require.NoError(t, sweeps.Wait())
	return took
}
