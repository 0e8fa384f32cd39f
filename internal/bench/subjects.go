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

// subjects are what the cells measure: the plain cases, a process of two log
// lanes as is the default, one of one, and another operating-system process that serves streams.
type subjects struct {
	plain    *plain
	two, one *process
	reader   *reader

	held    []*lease.Held // of process two
	heldOne []*lease.Held
	letGo   []func()
	posts   *poster
}

const (
	manyRuns  = 256
	batchRuns = 64
)

func newSubjects(ctx context.Context, databaseURL string) (_ *subjects, err error) {
	s := &subjects{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.plain, err = newPlain(ctx, databaseURL); err != nil {
		return nil, err
	}
	if s.two, err = newProcess(ctx, databaseURL, 2); err != nil {
		return nil, err
	}
	if s.one, err = newProcess(ctx, databaseURL, 1); err != nil {
		return nil, err
	}
	if s.reader, err = startReader(ctx, databaseURL); err != nil {
		return nil, err
	}
	if s.held, err = s.hold(ctx, s.two, manyRuns); err != nil {
		return nil, err
	}
	if s.heldOne, err = s.hold(ctx, s.one, batchRuns); err != nil {
		return nil, err
	}
	s.posts, err = newPoster(ctx, s.two)
	return s, err
}

func (s *subjects) close() error {
	var errs []error
	for _, f := range s.letGo {
		f()
	}
	if s.reader != nil {
		errs = append(errs, s.reader.close())
	}
	for _, p := range []*process{s.two, s.one} {
		if p != nil {
			errs = append(errs, p.close())
		}
	}
	if s.plain != nil {
		s.plain.pool.Close()
	}
	return errors.Join(errs...)
}

func (s *subjects) cells() []cell {
	return []cell{
		s.plain.inserts(1), s.starts(1), s.appends(s.held[:1], 1, "append 1"), s.posts.frames(1),
		s.plain.inserts(32), s.starts(32), s.posts.frames(32),
		s.plain.inserts(64), s.appends(s.held[:64], 1, "append 64"), s.appends(s.held, 1, "append 256"),
		s.plain.batches(64, 10), s.appends(s.held[:64], 10, "append 64 of 10"), s.appends(s.heldOne, 10, "append 64 of 10, 1 lane"),
		s.plain.batches(64, 50), s.appends(s.held[:64], 50, "append 64 of 50"), s.appends(s.heldOne, 50, "append 64 of 50, 1 lane"),
		s.plain.notices(), streamed("stream here", s.two, s.two.url), streamed("stream there", s.two, s.reader.url),
	}
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
	return cell{fmt.Sprintf("start %d", n), func(ctx context.Context, d time.Duration) (result, error) {
		ctx = telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
		return load(ctx, n, d, 1, func(ctx context.Context, _ int) error {
			_, err := newRun(ctx, s.two)
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
	return cell{name, func(ctx context.Context, d time.Duration) (result, error) {
		ctx = telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
		return load(ctx, len(held), d, size, func(ctx context.Context, client int) error {
			_, err := held[client].Commit(ctx, runlog.Append(events...))
			return err
		})
	}}
}

// hold starts n runs and takes their leases until the subjects are closed.
func (s *subjects) hold(ctx context.Context, p *process, n int) ([]*lease.Held, error) {
	var all []*lease.Held
	for range n {
		r, err := newRun(ctx, p)
		if err != nil {
			return nil, err
		}
		taken, failed, leave := make(chan *lease.Held, 1), make(chan error, 1), make(chan struct{})
		var left sync.WaitGroup
		left.Go(func() {
			failed <- p.leases.With(context.WithoutCancel(ctx), r, func(_ context.Context, h *lease.Held) error {
				taken <- h
				<-leave
				return nil
			})
		})
		s.letGo = append(s.letGo, func() { close(leave); left.Wait() })
		select {
		case h := <-taken:
			all = append(all, h)
		case err := <-failed:
			return nil, fmt.Errorf("hold a run: %w", err)
		}
	}
	return all, nil
}

// firstLine is a short text's first line.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.TrimSpace(line)
}
