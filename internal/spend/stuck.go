package spend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// StuckAge is how long a hold is left alone before it can be stuck.
const StuckAge = time.Minute

// perPass is how many reservations one pass of a sweep takes.
const perPass = 500

// Recovered is what RecoverStuck did.
type Recovered struct {
	Released, Marked, Committed int
}

// RecoverStuck settles, as far as it can be known, what is held by calls that
// nobody is at work on: their run has ended, their call has, or the provider may
// have been asked and no executor has held the run for so long. What was never
// started is released; a model call is booked as maybe billed; of the others
// nobody knows, so they are marked and probes find out. Of what somebody settles
// meanwhile it keeps its hands off. progress, when given, is told after each.
func RecoverStuck(ctx context.Context, q db.DBTX, log *runlog.Appender, age time.Duration, progress func(done, total int)) (done Recovered, err error) {
	queries := db.New(q)
	count, err := queries.SpendReservationCountStuck(ctx, age)
	if err != nil {
		return done, fmt.Errorf("count stuck reservations: %w", err)
	}
	total := int(count)
	var failures []error
	for n := 0; n < total; {
		page, err := queries.SpendReservationListStuck(ctx, db.SpendReservationListStuckParams{Age: age, MaxReservations: perPass})
		if err != nil {
			return done, errors.Join(append(failures, fmt.Errorf("list stuck reservations: %w", err))...)
		}
		if len(page) <= len(failures) {
			break // nothing but what failed
		}
		for _, row := range page {
			if err := recovered(ctx, log, row, &done); err != nil {
				failures = append(failures, err)
			}
			if n++; progress != nil {
				progress(min(n, total), total)
			}
		}
	}
	return done, errors.Join(failures...)
}

// RecoverSome does what RecoverStuck does to so many at the most, the oldest
// first, and says how many it looked at and how many are left.
func RecoverSome(ctx context.Context, q db.DBTX, log *runlog.Appender, age time.Duration, limit int) (done Recovered, checked, left int, err error) {
	queries := db.New(q)
	page, err := queries.SpendReservationListStuck(ctx, db.SpendReservationListStuckParams{Age: age, MaxReservations: int32(limit)})
	if err != nil {
		return done, 0, 0, fmt.Errorf("list stuck reservations: %w", err)
	}
	var failures []error
	for _, row := range page {
		failures = append(failures, recovered(ctx, log, row, &done))
	}
	count, err := queries.SpendReservationCountStuck(ctx, age)
	if err != nil {
		failures = append(failures, fmt.Errorf("count stuck reservations: %w", err))
	}
	return done, len(page), int(count), errors.Join(failures...)
}

// recovered recovers one, unless somebody else is at work on it.
func recovered(ctx context.Context, log *runlog.Appender, row db.SpendReservationListStuckRow, done *Recovered) error {
	err := recoverOne(ctx, log, row.SpendReservation, row.HeadEpoch, done)
	if err == nil || errors.Is(err, ErrMoved) || errors.Is(err, runlog.ErrFenced) {
		return nil
	}
	return fmt.Errorf("recover the reservation %s of run %s: %w", row.SpendReservation.ToolCallID, row.SpendReservation.RunID, err)
}

// recoverOne settles one that is stuck, under the epoch that its run had when it
// was found so: an executor that takes the run meanwhile decides itself.
func recoverOne(ctx context.Context, log *runlog.Appender, r db.SpendReservation, epoch int64, done *Recovered) error {
	const why = "stale_reservation"
	var c runlog.Change
	var count *int
	switch {
	case r.StartedAt == nil:
		c, count = Release(r, why, 0), &done.Released
	case r.Kind == ForModel:
		var err error
		if c, err = Commit(r, Settled{AmountSats: r.AmountSats, MaybeBilled: true, Reason: why}, 0); err != nil {
			return err
		}
		count = &done.Committed
	default:
		c, count = Mark(r, why, 0), &done.Marked
	}
	if err := Settle(ctx, log, r, epoch, c); err != nil {
		return err
	}
	*count++
	return nil
}

// TakeDue takes reservations whose truth is to be asked for now, so many at the
// most; other processes leave them alone for the pause.
func TakeDue(ctx context.Context, q db.DBTX, pause time.Duration, limit int) ([]db.SpendReservation, error) {
	due, err := db.New(q).SpendReservationTakeDue(ctx, db.SpendReservationTakeDueParams{Pause: pause, MaxReservations: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("take reservations to ask for: %w", err)
	}
	return due, nil
}

// ProbeLater says when to ask for the truth again, after a probe that found none.
func ProbeLater(ctx context.Context, q db.DBTX, r db.SpendReservation, pause time.Duration) error {
	if err := db.New(q).SpendReservationProbeLater(ctx, db.SpendReservationProbeLaterParams{
		RunKey: r.RunKey, ToolCallID: r.ToolCallID, Pause: pause,
	}); err != nil {
		return fmt.Errorf("ask later for %s: %w", r.ToolCallID, err)
	}
	return nil
}
