package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// deltaText makes a payload of 86 bytes, a few words of a model.
const deltaText = "a delta of a few words, about as long as models stream"

const userID = int64(1)

// subjects are what the cells measure: the plain cases, a process with two log
// lanes as is the default, one with a lone lane, and another operating-system
// process that serves streams.
type subjects struct {
	plain     *plain
	std, lone *process
	reader    *child

	held     []*lease.Held // of process std
	heldLone []*lease.Held
	many     []*lease.Held // of process std, for the row with most runs
	letGo    []func()
	letting  sync.Mutex
	posts    *poster
	// What cells make when they are prepared.
	frameRuns []db.Run
	keeper    *lease.Keeper
	ends      []func() error
	reads     []db.Run
	others    *kit

	database *database
	url      string
	o        options
}

// oneDelta is a unit with one delta.
var oneDelta = runlog.Append(event.MessageDeltaV1{PartID: "text-1", Delta: deltaText})

const (
	manyRuns  = 256
	batchRuns = 64
)

func newSubjects(ctx context.Context, d *database, o options) (_ *subjects, err error) {
	databaseURL := d.url
	s := &subjects{database: d, url: databaseURL, o: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.plain, err = newPlain(ctx, databaseURL); err != nil {
		return nil, err
	}
	if s.std, err = newProcess(ctx, databaseURL, 2); err != nil {
		return nil, err
	}
	if s.lone, err = newProcess(ctx, databaseURL, 1); err != nil {
		return nil, err
	}
	if s.reader, err = startChild(ctx, "-serve", databaseURL); err != nil {
		return nil, err
	}
	if s.held, err = s.hold(ctx, s.std, manyRuns); err != nil {
		return nil, err
	}
	if s.heldLone, err = s.hold(ctx, s.lone, batchRuns); err != nil {
		return nil, err
	}
	s.posts, err = newPoster(ctx, s.std)
	return s, err
}

func (s *subjects) close() error {
	var errs []error
	for _, end := range s.ends {
		errs = append(errs, end())
	}
	for _, f := range s.letGo {
		f()
	}
	if s.reader != nil {
		errs = append(errs, s.reader.close())
	}
	for _, p := range []*process{s.std, s.lone} {
		if p != nil {
			errs = append(errs, p.close())
		}
	}
	if s.plain != nil {
		s.plain.pool.Close()
	}
	return errors.Join(errs...)
}

func newRun(ctx context.Context, p *process) (db.Run, error) {
	user := userID
	r, _, err := run.Start(ctx, p.pool, run.Envelope{
		RunID: uuid.NewString(), ThreadID: uuid.NewString(), UserID: &user, AuthenticatedSession: true,
	})
	return r, err
}

// starts is n clients that start runs.
func (s *subjects) starts(n int) cell {
	return cell{name: fmt.Sprintf("start %d", n), measure: func(ctx context.Context, d time.Duration) (result, error) {
		ctx = telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
		return load(ctx, n, d, 1, func(ctx context.Context, _ int) error {
			_, err := newRun(ctx, s.std)
			return err
		})
	}}
}

// appends is one client per held run, each appending deltas in batches of size
// as an executor does.
func (s *subjects) appends(held []*lease.Held, size int, name string) cell {
	delta := event.MessageDeltaV1{PartID: "text-1", Delta: deltaText}
	events := make([]event.Event, size)
	for i := range events {
		events[i] = delta
	}
	return cell{name: name, measure: func(ctx context.Context, d time.Duration) (result, error) {
		ctx = telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
		return load(ctx, len(held), d, size, func(ctx context.Context, client int) error {
			_, err := held[client].Commit(ctx, runlog.Append(events...))
			return err
		})
	}}
}

// most is the appends of the most runs.
func (s *subjects) most() cell {
	return cell{name: "append most", prepare: func(ctx context.Context) (err error) {
		s.many, err = s.hold(ctx, s.std, s.o.size.runs)
		return err
	}, measure: func(ctx context.Context, d time.Duration) (result, error) {
		return s.appends(s.many, 1, "").measure(ctx, d)
	}}
}

// first is the first held runs of process std.
func (s *subjects) first(n int) []*lease.Held { return s.held[:n] }

// hold starts n runs and takes their leases until the subjects are closed.
func (s *subjects) hold(ctx context.Context, p *process, n int) ([]*lease.Held, error) {
	var all []*lease.Held
	for range n {
		r, err := newRun(ctx, p)
		if err != nil {
			return nil, err
		}
		h, err := s.take(ctx, p.leases, r)
		if err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	return all, nil
}

// take takes a run's lease until the subjects are closed.
func (s *subjects) take(ctx context.Context, k *lease.Keeper, r db.Run) (*lease.Held, error) {
	taken, failed, leave := make(chan *lease.Held, 1), make(chan error, 1), make(chan struct{})
	var left sync.WaitGroup
	left.Go(func() {
		failed <- k.With(context.WithoutCancel(ctx), r, func(_ context.Context, h *lease.Held) error {
			taken <- h
			<-leave
			h.Released() // the database is dropped
			return nil
		})
	})
	s.letting.Lock()
	s.letGo = append(s.letGo, func() { close(leave); left.Wait() })
	s.letting.Unlock()
	select {
	case h := <-taken:
		return h, nil
	case err := <-failed:
		return nil, fmt.Errorf("hold a run: %w", err)
	}
}

// firstLine is a short text's first line.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.TrimSpace(line)
}
