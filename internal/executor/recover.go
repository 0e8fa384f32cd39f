package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// recover goes on where a lost executor stopped: it says so in the log and
// takes back what an open step wrote. A run whose executors are lost again and
// again, or for long, without progress is failed.
func (s *session) recover(ctx context.Context) error {
	if s.held.Losses == 0 && s.past.open == nil {
		return nil
	}
	if why, exhausted := s.exhausted(); exhausted && !s.now().CancelRequested {
		return s.giveUp(ctx, why)
	}
	discard, err := s.discardLost(ctx)
	if err != nil {
		return err
	}
	return s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		var change runlog.Change
		if s.held.Losses > 0 {
			change.Events = append(change.Events, s.lost(), event.RunRecoveredV1{Epoch: s.held.Epoch})
		}
		return discard(h, change)
	})
}

// exhausted says whether the budget of recoveries without progress is used up.
func (s *session) exhausted() (why string, exhausted bool) {
	h, c := s.held, s.e.Config
	switch {
	case h.Losses > c.MaxLosses:
		return fmt.Sprintf("%d executors in a row were lost without progress", h.Losses), true
	case h.Losses > 1 && h.LostFor > c.MaxLostFor:
		return fmt.Sprintf("executors were lost without progress for %s", h.LostFor.Round(time.Second)), true
	}
	return "", false
}

// lost reports the loss of the executor before this one.
func (s *session) lost() event.RunExecutorLostV1 {
	h := s.held
	e := event.RunExecutorLostV1{LostEpoch: h.Epoch - 1, Attempt: h.Losses}
	if !h.LostSince.IsZero() {
		since := h.LostSince.UTC().Truncate(time.Millisecond)
		e.LostSince = &since
	}
	if h.ProgressSeq > 0 {
		e.LastProgressSeq = &h.ProgressSeq
	}
	return e
}

func (s *session) giveUp(ctx context.Context, why string) error {
	discard, err := s.discardLost(ctx)
	if err != nil {
		return err
	}
	return s.finish(ctx, s.end("failed", "executor_recovery_exhausted", why), func(h runlog.Head) (runlog.Change, error) {
		return discard(h, runlog.Change{Events: []event.Event{s.lost()}})
	})
}

// discardLost prepares to take back the open step of a lost executor. Its model
// call is booked as maybe billed: nobody knows how it ended.
func (s *session) discardLost(ctx context.Context) (func(runlog.Head, runlog.Change) (runlog.Change, error), error) {
	open := s.past.open
	if open == nil {
		return func(_ runlog.Head, c runlog.Change) (runlog.Change, error) { return c, nil }, nil
	}
	frame, err := run.FrameByID(ctx, s.e.Pool, s.run.RunKey, open.frameID)
	if err != nil {
		return nil, err
	}
	ctx = frameContext(ctx, frame)
	call, err := s.prepare(ctx, frame, open.step, open.attempt, nil)
	if err != nil {
		return nil, err
	}
	lost, err := s.e.Predict.Lost(ctx, call.call).Change(s.held.Epoch)
	if err != nil {
		return nil, err
	}
	s.e.steps.WithLabelValues("executor_lost").Inc()
	s.past.addUsage(lost.Events[0].(event.PredictFinishedV1).Usage)
	return func(h runlog.Head, c runlog.Change) (runlog.Change, error) {
		return s.discard(h, merge(c, lost), event.StepDiscardedV1ReasonExecutorLost), nil
	}, nil
}

// discard adds to a change the events that take the open step back. h is the
// head before the change.
func (s *session) discard(h runlog.Head, c runlog.Change, reason event.StepDiscardedV1Reason) runlog.Change {
	open := s.past.open
	for _, id := range slices.Sorted(maps.Keys(open.reasonings)) {
		c.Events = append(c.Events, event.ReasoningFinishedV1{PartID: id})
	}
	for _, id := range slices.Sorted(maps.Keys(open.texts)) {
		c.Events = append(c.Events, event.MessageDiscardedV1{PartID: id})
	}
	c.Events = append(c.Events, event.StepDiscardedV1{
		Step: open.step, FromSeq: open.fromSeq, ToSeq: h.Seq + int64(len(c.Events)), Reason: reason,
	})
	return c
}

func merge(a, b runlog.Change) runlog.Change {
	a.Events = append(slices.Clone(a.Events), b.Events...)
	a.Rows = append(slices.Clone(a.Rows), b.Rows...)
	return a
}

func ignoring(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}
