package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

const (
	replayEvents = 5000
	tailRuns     = 50
)

// grown starts runs with so many deltas each.
func (s *subjects) grown(ctx context.Context, runs, deltas int) (all []db.Run, err error) {
	ctx = telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
	for range runs {
		r, err := newRun(ctx, s.std)
		if err != nil {
			return nil, err
		}
		if err := grow(ctx, s.std, r, deltas); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// replay reads a whole run over HTTP, from the start to its newest event.
func (s *subjects) replay() cell {
	return cell{name: "replay", prepare: s.prepareReads, measure: func(ctx context.Context, d time.Duration) (result, error) {
		return load(ctx, 1, d, replayEvents, func(ctx context.Context, _ int) error {
			id := s.reads[0].RunID
			req, err := signed(ctx, http.MethodGet, s.std.url, "/internal/v1/runs/"+id+"/stream", id, nil)
			if err != nil {
				return err
			}
			res, err := s.posts.client.Do(req)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			last := []byte("id: " + strconv.Itoa(replayEvents+1) + "\n")
			for in := bufio.NewReaderSize(res.Body, 64<<10); ; {
				line, err := in.ReadSlice('\n')
				if err != nil {
					return fmt.Errorf("the replay broke (answered %d): %w", res.StatusCode, err)
				}
				if bytes.Equal(line, last) {
					return nil
				}
			}
		})
	}}
}

const rawColumns = `run_key, seq, event_type, event_version, payload, content_hash, event_hash, traceparent, tracestate, request_id, inserted_at`

// rawReplay reads the same run's rows with one question and looks at none.
func (s *subjects) rawReplay() cell {
	return cell{name: "raw replay", prepare: s.prepareReads, measure: func(ctx context.Context, d time.Duration) (result, error) {
		return load(ctx, 1, d, replayEvents, func(ctx context.Context, _ int) error {
			return s.raw(ctx, s.reads[0].RunKey, 0, replayEvents)
		})
	}}
}

func (s *subjects) raw(ctx context.Context, key uuid.UUID, after int64, atLeast int) error {
	rows, err := s.plain.pool.Query(ctx, "SELECT "+rawColumns+" FROM runtime.run_log_deltas WHERE run_key = $1 AND seq > $2 ORDER BY seq", key, after)
	if err != nil {
		return err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		n += min(1, len(rows.RawValues()))
	}
	if n < atLeast {
		return errors.Join(rows.Err(), fmt.Errorf("%d rows of %d", n, atLeast))
	}
	return rows.Err()
}

// tailOne reads a run's one new event as a stream does.
func (s *subjects) tailOne() cell {
	return cell{name: "tail", prepare: s.prepareReads, measure: func(ctx context.Context, d time.Duration) (result, error) {
		return load(ctx, 1, d, 1, func(ctx context.Context, _ int) error { return s.newest(ctx) })
	}}
}

func (s *subjects) newest(ctx context.Context) error {
	events, err := runlog.After(ctx, s.std.readPool, s.reads[0].RunKey, replayEvents, 256)
	if err == nil && len(events) != 1 {
		err = fmt.Errorf("%d new events, not 1", len(events))
	}
	return err
}

// tailMany reads the one new event of each of many runs, as streams do whose
// bells rang together.
func (s *subjects) tailMany() cell {
	return cell{name: "tail many", prepare: s.prepareReads, measure: func(ctx context.Context, d time.Duration) (result, error) {
		places := make([]runlog.Place, tailRuns)
		for i := range places {
			places[i] = runlog.Place{RunKey: s.reads[i].RunKey, Seq: replayEvents}
		}
		return load(ctx, 1, d, tailRuns, func(ctx context.Context, _ int) error {
			pages, err := runlog.AfterEach(ctx, s.std.readPool, places, 256)
			for _, p := range pages {
				if len(p) != 1 {
					err = fmt.Errorf("%d new events, not 1", len(p))
				}
			}
			return err
		})
	}}
}

// rawTail is the plain question for what is new in a run.
func (s *subjects) rawTail() cell {
	return cell{name: "raw tail", prepare: s.prepareReads, measure: func(ctx context.Context, d time.Duration) (result, error) {
		return load(ctx, 1, d, 1, func(ctx context.Context, _ int) error { return s.raw(ctx, s.reads[0].RunKey, replayEvents, 1) })
	}}
}

func (s *subjects) prepareReads(ctx context.Context) (err error) {
	if s.reads == nil {
		s.reads, err = s.grown(ctx, tailRuns, replayEvents)
	}
	return err
}

// growing appends one by one to a run that is this long already.
func (s *subjects) growing(name string, length int) cell {
	var to db.Run
	return cell{name: name, prepare: func(ctx context.Context) error {
		all, err := s.grown(ctx, 1, length)
		if err == nil {
			to = all[0]
		}
		return err
	}, measure: func(ctx context.Context, d time.Duration) (result, error) {
		trace := telemetry.NewTrace("", "", "")
		return load(ctx, 1, d, 1, func(ctx context.Context, _ int) error {
			_, err := s.std.log.Commit(ctx, runlog.Unit{RunKey: to.RunKey, RunID: to.RunID, Trace: trace, Decide: oneDelta})
			return err
		})
	}}
}

func readRows() []row {
	return []row{
		{what: "replay 5,000 events to SSE bytes, against their rows [14]", ours: "replay", plain: "raw replay", unit: perSecond, figure: rate, want: want{ratio, .3, .5}},
		{what: "read one new event, against its row [14]", ours: "tail", plain: "raw tail", unit: perSecond, figure: rate, want: want{ratio, .7, .85}},
		{what: "read one new event of each of 50 runs, events, against one run [14]", ours: "tail many", plain: "tail", unit: perSecond, figure: rate, want: want{ratio, 8, 15}},
		{what: "append p50 in a run of 1,000,000 events, against a new run [14]", ours: "long run", plain: "new run", unit: inMillis, figure: median, want: want{ratio, 1.15, 1.15}},
	}
}

func (s *subjects) readCells() []cell {
	return []cell{
		s.rawReplay(), s.replay(), s.rawTail(), s.tailOne(), s.tailMany(),
		s.growing("new run", 0), s.growing("long run", s.o.size.longRun),
	}
}
