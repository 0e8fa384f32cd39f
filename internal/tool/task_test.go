package tool_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

var allowed = policy.Evaluation{
	Decision: policy.Allowed, ReasonCode: "policy_allowed.default", Document: json.RawMessage(`{}`), Hash: canon.Hash([]byte("{}")),
}

// desk is a run in a database, and a process that writes to it.
type desk struct {
	pool *pgxpool.Pool
	p    *runtest.Process
	run  db.Run
}

func newDesk(t testing.TB) desk {
	t.Helper()
	pool := dbtest.New(t)
	return desk{pool, runtest.NewProcess(t, pool), runtest.Run(t, pool)}
}

func (d desk) commit(c runlog.Change, err error) error {
	if err != nil {
		return err
	}
	_, err = d.p.Log.Commit(context.Background(), runlog.Unit{RunKey: d.run.RunKey, RunID: d.run.RunID,
		Decide: func(runlog.Head) (runlog.Change, error) { return c, nil }})
	return err
}

func (d desk) request(id string) tool.Request {
	return tool.Request{Run: d.run, ToolCallID: id, Spec: spec("a"), Input: json.RawMessage(`{"b":1,"a":"x"}`),
		RequestedBy: "model", Step: 1, Index: 2, Trace: telemetry.NewTrace("", "", "")}
}

func (d desk) task(t require.TestingT, id string) db.ToolTask {
	task, err := tool.Get(context.Background(), d.pool, "user:1", id, &d.run.RunKey)
	require.NoError(t, err)
	return task
}

func done(output string) tool.Outcome {
	return tool.Outcome{State: tool.Succeeded, Output: json.RawMessage(output), OutputHash: canon.Hash([]byte(output)),
		Provider: "provider.a", CorrelationID: "theirs", Latency: 1500 * time.Millisecond, Attempts: 1}
}

// events are a run's events of a type.
func events[E event.Event](t require.TestingT, d desk) (all []E) {
	var e E
	rows, err := runlog.OfTypes(context.Background(), d.pool, []uuidKey{d.run.RunKey}, e.EventType())
	require.NoError(t, err)
	for _, row := range rows {
		var one E
		require.NoError(t, json.Unmarshal(row.Payload, &one))
		all = append(all, one)
	}
	return all
}

func TestACallFromRequestToReceipt(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	q := d.request("call_1")
	require.NoError(t, d.commit(tool.Requested(q, allowed, "")))
	queued := d.task(t, "call_1")
	require.Equal(t, tool.Queued, queued.State)
	require.JSONEq(t, `{"a":"x","b":1}`, string(queued.Input))
	document, err := tool.Evaluation(t.Context(), d.pool, allowed.Hash)
	require.NoError(t, err)
	require.JSONEq(t, `{}`, string(document))

	require.NoError(t, d.commit(tool.Started(queued, "provider.a", 7), nil))
	running := d.task(t, "call_1")
	expected := tool.AfterStart(queued, "provider.a", 7)
	require.Equal(t, expected.State, running.State)
	require.Equal(t, expected.Attempts, running.Attempts)
	require.Equal(t, expected.LeaseEpoch, running.LeaseEpoch)
	require.WithinDuration(t, running.RunningAt.Add(time.Second), *running.DeadlineAt, 50*time.Millisecond)

	require.NoError(t, d.commit(tool.Progressed(expected, json.RawMessage(`"half"`), 7), nil))
	require.Equal(t, tool.StreamingOutput, d.task(t, "call_1").State)
	require.NoError(t, d.commit(tool.Finished(expected, done(`{"n":1}`), 7)))
	last := d.task(t, "call_1")
	require.Equal(t, tool.Succeeded, last.State)
	require.JSONEq(t, `{"n":1}`, string(last.Output))
	require.EqualValues(t, 1500, *last.LatencyMs)
	require.Equal(t, canon.Hash(last.Receipt), *last.ReceiptHash)

	var r ds.ToolReceiptV1
	require.NoError(t, json.Unmarshal(last.Receipt, &r))
	whole, err := canon.HashJSON(map[string]any{"a": "x", "b": 1})
	require.NoError(t, err)
	require.Equal(t, whole, r.ParamsHash)
	require.Equal(t, canon.Hash([]byte(`{"n":1}`)), *r.OutputHash)
	require.Equal(t, allowed.Hash, *r.EvaluationHash)
	require.EqualValues(t, "allowed", *r.Decision)
	require.EqualValues(t, 1, r.Attempts)
	require.Equal(t, "theirs", *r.CorrelationID)
	require.Equal(t, "policy_allowed.default", r.ReasonCode)
	require.Regexp(t, `^tool_[0-9a-f]{24}$`, r.ReceiptID)

	require.Equal(t, []string{event.TypeRunAccepted, event.TypeToolRequested, event.TypePolicyDecision, event.TypeToolStarted,
		event.TypeToolProgressed, event.TypeToolFinished}, runtest.Types(t, d.pool, d.run))
	finished := events[event.ToolFinishedV1](t, d)[0]
	require.Equal(t, r.ReceiptID, finished.ReceiptID)
	require.Equal(t, map[string]any{"n": 1.}, finished.Output)
}

func TestARefusedCallEndsAsItComes(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	denied := policy.Evaluation{Decision: policy.Denied, ReasonCode: "policy_denied.explicit_deny", Document: json.RawMessage(`{"d":1}`), Hash: canon.Hash([]byte("d"))}
	require.NoError(t, d.commit(tool.Refused(d.request("denied"), &denied, &tool.Error{Class: "policy_denied", Message: "A rule refuses it."})))
	unknown := d.request("unknown")
	unknown.Spec, unknown.Input = tool.Spec{Name: "no\xffsuch"}, json.RawMessage(`not json`)
	require.NoError(t, d.commit(tool.Refused(unknown, nil, &tool.Error{Class: tool.ClassNotFound, Message: "There is none."})))
	for id, want := range map[string]struct{ class, reason string }{
		"denied": {"policy_denied", "policy_denied.explicit_deny"}, "unknown": {tool.ClassNotFound, "tool_failed.provider_error"},
	} {
		last := d.task(t, id)
		require.Equal(t, tool.Failed, last.State)
		require.Equal(t, want.class, *last.ErrorClass)
		var r ds.ToolReceiptV1
		require.NoError(t, json.Unmarshal(last.Receipt, &r))
		require.Equal(t, want.reason, r.ReasonCode)
		require.Zero(t, r.Attempts)
	}
	require.Len(t, events[event.ToolFinishedV1](t, d), 2)
	require.Len(t, events[event.PolicyDecisionV1](t, d), 1)
}

func TestTheSameIDAgain(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	q := d.request("call_1")
	hash := tool.ParamsHash(q.Input)
	_, found, err := tool.Known(t.Context(), d.pool, d.run.RunKey, "call_1", "a", hash)
	require.NoError(t, err)
	require.False(t, found)
	require.NoError(t, d.commit(tool.Requested(q, allowed, "")))
	err = d.commit(tool.Requested(q, allowed, ""))
	require.True(t, tool.Moved(err), "%v", err)
	require.Len(t, events[event.ToolRequestedV1](t, d), 1)
	_, found, err = tool.Known(t.Context(), d.pool, d.run.RunKey, "call_1", "a", tool.ParamsHash(json.RawMessage(`{"a":"x", "b":1.0}`)))
	require.NoError(t, err, "the same arguments, written otherwise")
	require.True(t, found)
	_, _, err = tool.Known(t.Context(), d.pool, d.run.RunKey, "call_1", "a", tool.ParamsHash(json.RawMessage(`{}`)))
	require.True(t, fault.Is(err, api.ToolCallConflict))
	_, _, err = tool.Known(t.Context(), d.pool, d.run.RunKey, "call_1", "b", hash)
	require.True(t, fault.Is(err, api.ToolCallConflict))
}

func TestACallsIDIsMadeFromWhatItIs(t *testing.T) {
	t.Parallel()
	id := func(run, step string, i int, name, input string) string {
		id, err := tool.CallID(run, step, i, name, tool.ParamsHash(json.RawMessage(input)))
		require.NoError(t, err)
		require.Regexp(t, `^call_[0-9a-f]{24}$`, id)
		return id
	}
	first := id("r", "s", 0, "a", `{"x":1}`)
	require.Equal(t, first, id("r", "s", 0, "a", `{ "x": 1.0 }`))
	for _, other := range []string{id("q", "s", 0, "a", `{"x":1}`), id("r", "t", 0, "a", `{"x":1}`), id("r", "s", 1, "a", `{"x":1}`),
		id("r", "s", 0, "b", `{"x":1}`), id("r", "s", 0, "a", `{"x":2}`), id("r", "s", 0, "\xff", `{"x":1}`)} {
		require.NotEqual(t, first, other)
	}
}

func TestNobodyElsesCallIsSeen(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	require.NoError(t, d.commit(tool.Requested(d.request("call_1"), allowed, "")))
	_, err := tool.Get(t.Context(), d.pool, "user:2", "call_1", nil)
	require.True(t, fault.Is(err, api.ToolTaskNotFound))
	second := desk{d.pool, d.p, runtest.Run(t, d.pool)}
	require.NoError(t, second.commit(tool.Requested(second.request("call_1"), allowed, "")))
	_, err = tool.Get(t.Context(), d.pool, "user:1", "call_1", nil)
	require.True(t, fault.Is(err, api.InvalidRequest))
	require.Equal(t, second.run.RunKey, second.task(t, "call_1").RunKey)
}

func TestAPageGoesOnWhereTheLastEnded(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		require.NoError(t, d.commit(tool.Requested(d.request(id), allowed, "")))
	}
	var ids []string
	for page, more := (*tool.Page)(nil), true; more; more = page != nil {
		tasks, next, err := tool.List(t.Context(), d.pool, d.run.RunKey, page, 2)
		require.NoError(t, err)
		for _, task := range tasks {
			ids = append(ids, task.ToolCallID)
		}
		page = next
	}
	require.Equal(t, []string{"e", "d", "c", "b", "a"}, ids)
	n, err := tool.Count(t.Context(), d.pool, d.run.RunKey)
	require.NoError(t, err)
	require.EqualValues(t, 5, n)
	some, err := tool.ByIDs(t.Context(), d.pool, d.run.RunKey, []string{"a", "x", "d"})
	require.NoError(t, err)
	require.Len(t, some, 2)
}

func TestACancelIsAskedForOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	require.NoError(t, d.commit(tool.Requested(d.request("call_1"), allowed, "")))
	c := tool.CancelRequested(d.task(t, "call_1"), "user:1", "")
	require.True(t, c.Work)
	require.NoError(t, d.commit(c, nil))
	require.True(t, tool.Moved(d.commit(c, nil)))
	require.True(t, d.task(t, "call_1").CancelRequested)
	require.Len(t, events[event.ToolCancelRequestedV1](t, d), 1)
}

func TestOneOfManyWritersEndsATask(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	others := []*runtest.Process{d.p, runtest.NewProcess(t, d.pool), runtest.NewProcess(t, d.pool)}
	for _, id := range []string{"call_1", "call_2", "call_3"} {
		require.NoError(t, d.commit(tool.Requested(d.request(id), allowed, "")))
		require.NoError(t, d.commit(tool.Started(d.task(t, id), "provider.a", 1), nil))
		task := d.task(t, id)
		var won, moved atomic.Int64
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for i := range 32 {
			w := desk{d.pool, others[i%len(others)], d.run}
			o := done(`1`)
			if i%2 == 1 {
				o = tool.Ended(task, tool.Canceled, &tool.Error{Class: "canceled"})
			}
			wg.Go(func() {
				<-begin
				switch err := w.commit(tool.Finished(task, o, 1)); {
				case err == nil:
					won.Add(1)
				case tool.Moved(err):
					moved.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		close(begin)
		wg.Wait()
		require.EqualValues(t, 1, won.Load())
		require.EqualValues(t, 31, moved.Load())
	}
	require.Len(t, events[event.ToolFinishedV1](t, d), 3)
}

func TestAnOlderLeaseEndsNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	require.NoError(t, d.commit(tool.Requested(d.request("call_1"), allowed, "")))
	mine := tool.AfterStart(d.task(t, "call_1"), "provider.a", 3)
	require.NoError(t, d.commit(tool.Started(d.task(t, "call_1"), "provider.a", 3), nil))
	require.NoError(t, d.commit(tool.Started(mine, "provider.a", 4), nil), "another executor takes it over")
	require.True(t, tool.Moved(d.commit(tool.Finished(mine, done(`1`), 3))))
	require.True(t, tool.Moved(d.commit(tool.Progressed(mine, json.RawMessage(`1`), 3), nil)))
	theirs := tool.AfterStart(mine, "provider.a", 4)
	require.NoError(t, d.commit(tool.Finished(theirs, done(`2`), 4)))
	last := d.task(t, "call_1")
	require.EqualValues(t, 2, last.Attempts)
	require.JSONEq(t, `2`, string(last.Output))
}

func TestALateResultChangesNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	require.NoError(t, d.commit(tool.Requested(d.request("call_1"), allowed, "")))
	task := d.task(t, "call_1")
	require.NoError(t, d.commit(tool.Finished(task, tool.Ended(task, tool.Canceled, &tool.Error{Class: "canceled"}), 1)))
	before := d.task(t, "call_1")
	require.NoError(t, d.commit(tool.Late(before, done(`1`), "frame_9"), nil))
	require.Equal(t, before, d.task(t, "call_1"))
	late := events[event.ToolLateV1](t, d)
	require.Len(t, late, 1)
	require.Equal(t, canon.Hash([]byte(`1`)), *late[0].OutputHash)
}

func TestStoredArgumentsRunOnlyWhenTheyAreWhole(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	require.NoError(t, d.commit(tool.Requested(d.request("call_1"), allowed, "")))
	task := d.task(t, "call_1")
	input, refused := tool.StoredInput(task)
	require.Nil(t, refused)
	require.JSONEq(t, `{"a":"x","b":1}`, string(input))
	c := tool.CallOf(d.run, tool.AfterStart(task, "p", 1), input)
	require.Equal(t, 1, c.Attempt)
	require.Equal(t, "user:1", c.Owner)
	require.EqualValues(t, 1, c.UserID)
	task.Input = []byte(`{"a":"[REDACTED]","b":1}`)
	_, refused = tool.StoredInput(task)
	require.Equal(t, tool.ClassInputRedacted, refused.Class)
}

// Whatever is tried in whatever order, by executors of any epoch and with rows as
// they were at any moment: the row, its receipt and the log tell one story.
func TestAnyOrderOfChangesHasOneEnd(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	var runs atomic.Int64
	rapid.Check(t, func(t *rapid.T) {
		d := desk{d.pool, d.p, startRun(t, d.pool)}
		runs.Add(1)
		require.NoError(t, d.commit(tool.Requested(d.request("call_1"), allowed, "")))
		seen := []db.ToolTask{d.task(t, "call_1")} // as it was at some moments
		var ends int
		var receipt string
		state := tool.Queued
		attempts, epoch := 0, int64(0)
		for range rapid.IntRange(1, 14).Draw(t, "steps") {
			row := rapid.SampledFrom(seen).Draw(t, "row")
			mine := int64(rapid.IntRange(1, 3).Draw(t, "epoch"))
			op := rapid.SampledFrom([]string{"start", "progress", "succeed", "fail", "cancel", "time out", "ask to stop", "late", "again"}).Draw(t, "op")
			fresh := int(row.Attempts) == attempts && mine >= epoch && !tool.Terminal(state)
			var err error
			may, moves := fresh, true
			switch op {
			case "start":
				err = d.commit(tool.Started(row, "provider.a", mine), nil)
			case "progress":
				may = fresh && state != tool.Queued
				err = d.commit(tool.Progressed(row, json.RawMessage(`"p"`), mine), nil)
			case "succeed":
				may = fresh && state != tool.Queued
				err = d.commit(tool.Finished(row, done(`1`), mine))
			case "fail":
				err = d.commit(tool.Finished(row, tool.Ended(row, tool.Failed, &tool.Error{Class: "x"}), mine))
			case "cancel":
				err = d.commit(tool.Finished(row, tool.Ended(row, tool.Canceled, &tool.Error{Class: "x"}), mine))
			case "time out":
				err = d.commit(tool.Finished(row, tool.Ended(row, tool.TimedOut, &tool.Error{Class: "x"}), mine))
			case "ask to stop":
				may, moves = !tool.Terminal(state) && !d.task(t, "call_1").CancelRequested, false
				err = d.commit(tool.CancelRequested(row, "user:1", ""), nil)
			case "late":
				may, moves = true, false
				err = d.commit(tool.Late(row, done(`2`), ""), nil)
			case "again":
				may, moves = false, false
				err = d.commit(tool.Requested(d.request("call_1"), allowed, ""))
			}
			if may {
				require.NoError(t, err, op)
			} else {
				require.True(t, tool.Moved(err), "%s: %v", op, err)
			}
			now := d.task(t, "call_1")
			if may && moves {
				epoch = mine
				if op == "start" {
					attempts++
				}
				if tool.Terminal(now.State) {
					ends++
					receipt = *now.ReceiptHash
				}
			}
			state = now.State
			require.EqualValues(t, attempts, now.Attempts)
			if ends > 0 {
				require.Equal(t, receipt, *now.ReceiptHash)
				require.Equal(t, receipt, canon.Hash(now.Receipt))
			}
			require.Equal(t, seen[0].ParamsHash, now.ParamsHash)
			seen = append(seen, now)
		}
		require.LessOrEqual(t, ends, 1)
		finished := events[event.ToolFinishedV1](t, d)
		require.Len(t, finished, ends)
		require.Len(t, events[event.ToolStartedV1](t, d), attempts)
		require.Len(t, events[event.ToolRequestedV1](t, d), 1)
		if ends == 1 {
			require.EqualValues(t, state, finished[0].State)
		}
	})
	require.NotZero(t, runs.Load())
}

func TestAReceiptNamesTheDecisionAfterAPersonsAnswer(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	asked := policy.Evaluation{Decision: policy.NeedsApproval, ReasonCode: "policy_denied.approval_required", Document: json.RawMessage(`{"ask":1}`), Hash: canon.Hash([]byte("ask"))}
	require.NoError(t, d.commit(tool.Requested(d.request("call_1"), asked, "appr_1")))
	approved := policy.Evaluation{Decision: policy.Allowed, ReasonCode: "policy_allowed.approved_interactively", Document: json.RawMessage(`{"yes":1}`), Hash: canon.Hash([]byte("yes"))}
	task := d.task(t, "call_1")
	require.NoError(t, d.commit(tool.Decided(task, approved, 1), nil))
	task = tool.AfterDecided(task, approved, 1)
	require.NoError(t, d.commit(tool.Started(task, "provider.a", 1), nil))
	require.True(t, tool.Moved(d.commit(tool.Decided(task, asked, 1), nil)), "it has begun")
	require.NoError(t, d.commit(tool.Finished(tool.AfterStart(task, "provider.a", 1), done(`1`), 1)))
	last := d.task(t, "call_1")
	require.Equal(t, approved.Hash, *last.EvaluationHash)
	var r ds.ToolReceiptV1
	require.NoError(t, json.Unmarshal(last.Receipt, &r))
	require.Equal(t, approved.Hash, *r.EvaluationHash)
	require.Equal(t, "appr_1", *r.ApprovalID)
	require.Equal(t, "policy_allowed.approved_interactively", r.ReasonCode)
	require.Len(t, events[event.PolicyDecisionV1](t, d), 2)
}

func TestMovedIsAboutTasks(t *testing.T) {
	t.Parallel()
	require.False(t, tool.Moved(nil))
	require.False(t, tool.Moved(errors.New("the network")))
	require.False(t, tool.Moved(runlog.ErrFenced))
}
