package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// audit checks the invariants of every run of a trial. An error means that the
// audit itself could not be made.
func (t *trial) audit(ctx context.Context) (result, error) {
	var res result
	for _, c := range t.runs {
		r, err := db.New(t.w.db.pool).RunGet(ctx, c.runID)
		if errors.Is(err, pgx.ErrNoRows) {
			res.violations = append(res.violations, fmt.Sprintf("run %s does not exist; its client: %v", c.runID, c.err))
			continue
		}
		if err != nil {
			return res, err
		}
		if _, err := runlog.Verify(ctx, t.w.db.pool, r.RunKey, r.RunID); err != nil {
			var chain *runlog.ChainError
			if !errors.As(err, &chain) {
				return res, err
			}
			res.violations = append(res.violations, fmt.Sprintf("run %s: %v", c.runID, err))
		}
		if err := t.tamper(ctx, &res, r); err != nil {
			return res, err
		}
		h, err := t.history(ctx, c, r)
		if err != nil {
			return res, err
		}
		wrong := h.check()
		if c.err != nil {
			wrong = append(wrong, fmt.Sprintf("run %s: the client: %v", c.runID, c.err))
		}
		if len(wrong) > 0 {
			res.logs = append(res.logs, h.String())
		}
		res.violations = append(res.violations, wrong...)
		res.lateCalls += h.lateCalls
		took, untimely := t.takeover(h)
		res.takeovers = append(res.takeovers, took...)
		res.violations = append(res.violations, untimely...)
		res.violations = append(res.violations, t.streams(ctx, c)...)
	}
	res.excused = t.excused
	return res, nil
}

// tamper flips one byte of one stored event and sees that Verify names it; then
// it takes that back.
func (t *trial) tamper(ctx context.Context, res *result, r db.Run) error {
	tx, err := t.w.db.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // there is nothing to keep
	var seq int64
	err = tx.QueryRow(ctx, "SELECT seq FROM run_log WHERE run_key = $1 ORDER BY random() LIMIT 1", r.RunKey).Scan(&seq)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // the audit says what is wrong with such a log
	}
	if err != nil {
		return err
	}
	column := []string{"content_hash", "event_hash"}[t.rng.IntN(2)]
	_, err = tx.Exec(ctx, "UPDATE run_log SET "+column+" = set_byte("+column+", $3, get_byte("+column+", $3) # $4) WHERE run_key = $1 AND seq = $2",
		r.RunKey, seq, t.rng.IntN(32), 1+t.rng.IntN(255))
	if err != nil {
		return err
	}
	_, err = runlog.Verify(ctx, tx, r.RunKey, r.RunID)
	var chain *runlog.ChainError
	if !errors.As(err, &chain) || chain.Seq != seq {
		res.violations = append(res.violations, fmt.Sprintf("run %s: a byte of %s at %d is flipped and Verify says %v", r.RunID, column, seq, err))
	}
	return nil
}

func (t *trial) history(ctx context.Context, c *client, r db.Run) (*history, error) {
	h := &history{runID: c.runID, receipts: map[string]receipt{}, accepted: c.accepted, refused: c.refused, woken: t.woken,
		unordered: c.many, cut: c.canceler, poisoned: c.poisoned,
		mayEnd: map[string]bool{
			"completed": !c.keepOpen && !c.poisoned, "canceled": c.keepOpen || c.canceler, "failed": c.poisoned,
		}}
	frames := map[string]bool{}
	err := runlog.Each(ctx, t.w.db.pool, r.RunKey, 0, func(row db.RunLog) error {
		e, err := runlog.Decode(row)
		if err != nil {
			return err
		}
		if f, ok := e.(event.FrameAppendedV1); ok {
			frames[f.FrameID] = true
		}
		h.facts = append(h.facts, fact{row.Seq, row.InsertedAt, e})
		return nil
	})
	if err != nil {
		return nil, err
	}
	stored, err := db.New(t.w.db.pool).DsPredictReceiptListOfRun(ctx, r.RunKey)
	if err != nil {
		return nil, err
	}
	for _, s := range stored {
		var body struct {
			MaybeBilled bool `json:"maybe_billed"`
		}
		if err := json.Unmarshal(s.Receipt, &body); err != nil {
			return nil, err
		}
		h.receipts[s.ReceiptID] = receipt{s.ReceiptID, s.Status, s.LeaseEpoch, body.MaybeBilled, s.InsertedAt}
	}
	h.calls = t.w.provider.of(frames)
	return h, t.toolHistory(ctx, h, r, frames)
}

// toolHistory adds what is known of a run's tool calls.
func (t *trial) toolHistory(ctx context.Context, h *history, r db.Run, frames map[string]bool) (err error) {
	h.wishes, h.effects, h.approvals = map[string][]wish{}, map[string][]effect{}, map[string]string{}
	for id := range frames {
		wishes := t.w.provider.wished(id)
		if len(wishes) == 0 {
			continue
		}
		h.wishes[id] = wishes
		for _, w := range wishes {
			h.effects[w.tool+" "+id] = t.w.tools.of(w.tool, id)
		}
	}
	if h.tasks, _, err = tool.List(ctx, t.w.db.pool, r.RunKey, nil, mostCalls); err != nil {
		return err
	}
	asked, err := approval.OfRun(ctx, t.w.db.pool, r.RunKey)
	for _, a := range asked {
		h.approvals[text(a.ToolCallID)] = a.State
	}
	return err
}

const mostCalls = 200 // of a run; the gate's have a dozen

// String is a run's log and calls, a line each.
func (h *history) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  run %s\n", h.runID)
	for _, f := range h.facts {
		if _, delta := f.body.(event.MessageDeltaV1); delta {
			continue
		}
		body, err := json.Marshal(f.body)
		if err != nil {
			body = []byte(err.Error())
		}
		fmt.Fprintf(&b, "    %4d %s %s %s\n", f.seq, f.at.Format("05.000"), f.body.EventType(), body)
	}
	for _, c := range h.calls {
		fmt.Fprintf(&b, "    call %s of frame %s at %s, completed %v; receipt %+v\n", c.key, c.frameID, c.begun.Format("05.000"), c.completed, h.receipts[c.key])
	}
	return b.String()
}

// inFlight is how long after its executor was hurt a commit that was on its way
// may still arrive.
const inFlight = time.Second

// takeover checks that a lost run was taken over in time and not before the
// lease's end, and tells how long it took.
func (t *trial) takeover(h *history) (took []time.Duration, wrong []string) {
	say := func(format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("run %s: "+format, append([]any{h.runID}, args...)...))
	}
	// What a machine that stands still makes late proves nothing.
	late := func(format string, args ...any) {
		if t.stall > t.w.ttl/4 {
			t.excused = append(t.excused, fmt.Sprintf(format, args...))
			return
		}
		say(format, args...)
	}
	lost, was := t.losses[h.runID]
	taken := false
	for _, f := range h.facts {
		e, ok := f.body.(event.RunRecoveredV1)
		switch {
		case !ok:
			continue
		case t.fault.takeovers == never:
			late("it was taken over at %d though nobody was lost", f.seq)
			continue
		case t.fault.takeovers == timed && !was:
			late("it was taken over at %d though its executor was not hurt", f.seq)
			continue
		case t.fault.takeovers == loose:
			if after := f.at.Sub(t.over); after > t.w.bound() {
				late("it was taken over %s after the fault was over, later than %s", after, t.w.bound())
			} else if after > 0 {
				took = append(took, after)
			}
			continue
		case e.Epoch != lost.epoch+1:
			late("epoch %d was lost and epoch %d follows", lost.epoch, e.Epoch)
			continue
		}
		taken = true
		after := f.at.Sub(lost.at)
		took = append(took, after)
		if f.at.Before(lost.expires) {
			say("it was taken over %s before its lease ended", lost.expires.Sub(f.at))
		}
		if after > t.w.bound() {
			late("it was taken over after %s, later than %s", after, t.w.bound())
		}
	}
	if t.fault.takeovers == timed && was && !taken && !endedBy(h, lost.at.Add(inFlight)) {
		late("its executor was lost and it was not taken over")
	}
	return took, wrong
}

// endedBy says whether a run was let go, ended or waiting, before a moment.
func endedBy(h *history, moment time.Time) bool {
	for _, f := range h.facts {
		switch f.body.(type) {
		case event.RunFinishedV1, event.RunWaitingV1:
			if f.at.Before(moment) {
				return true
			}
		}
	}
	return false
}

// streams compares what the reconnecting client saw with one undisturbed read.
func (t *trial) streams(ctx context.Context, c *client) []string {
	var wrong []string
	say := func(format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("run %s: the stream: "+format, append([]any{c.runID}, args...)...))
	}
	for _, w := range c.stream.wrong {
		say("%s", w)
	}
	if !c.stream.done {
		say("the client has not seen [DONE]; it is at %d", c.stream.cursor())
		return wrong
	}
	whole, err := undisturbed(ctx, t.fleet, c.runID)
	if err != nil {
		say("%v", err)
		return wrong
	}
	if len(whole) != len(c.stream.blocks) {
		say("the client saw %d blocks of %d", len(c.stream.blocks), len(whole))
		return wrong
	}
	for n, b := range whole {
		if b != c.stream.blocks[n] {
			say("block %d differs between two readers", n+1)
		}
	}
	return wrong
}
