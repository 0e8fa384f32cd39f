package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// counterTable numbers rows as one would without a log: a counter row per run.
const counterTable = `CREATE TABLE plain_counter (run_key uuid PRIMARY KEY, seq bigint NOT NULL) WITH (fillfactor = 50)`

const counterInsert = `WITH n AS (UPDATE public.plain_counter SET seq = seq + 1 WHERE run_key = $1 RETURNING seq)
	INSERT INTO public.plain (run_key, seq, event_type, event_version, payload, content_hash, event_hash, traceparent, request_id)
	SELECT $1, seq, $2, $3, $4, $5, $6, $7, $8 FROM n`

// counters is n clients, each with a connection and a commit per numbered row,
// of one run or of one each.
func (p *plain) counters(name string, n int, oneRun bool) cell {
	keys := make([]uuid.UUID, n)
	return cell{name: name, prepare: func(ctx context.Context) error {
		for i := range keys {
			if keys[i] = canon.NewKey(); oneRun {
				keys[i] = keys[0]
			}
			if _, err := p.pool.Exec(ctx, "INSERT INTO public.plain_counter VALUES ($1, 0) ON CONFLICT DO NOTHING", keys[i]); err != nil {
				return err
			}
		}
		return nil
	}, measure: func(ctx context.Context, d time.Duration) (result, error) {
		return p.each(ctx, n, func(conns []*pgxpool.Conn) (result, error) {
			return load(ctx, n, d, 1, func(ctx context.Context, client int) error {
				w := &p.writers[client]
				_, err := conns[client].Exec(ctx, counterInsert, keys[client], "message.delta", 1, w.payload, w.hash, w.hash, w.trace, w.request)
				return err
			})
		})
	}}
}

// frames is 64 clients that append frames of their run, new ones or the same one
// again and again.
func (s *subjects) frames(name string, again bool) cell {
	ids := make([]string, batchRuns)
	for i := range ids {
		ids[i] = uuid.NewString()
	}
	payload, err := json.Marshal(map[string]string{"text": deltaText})
	return cell{name: name, measure: func(ctx context.Context, d time.Duration) (result, error) {
		if err != nil {
			return result{}, err
		}
		ctx = telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
		put := func(ctx context.Context, client int) error {
			f := run.Frame{FrameID: ids[client], Type: "user_message", Payload: payload}
			if !again {
				f.FrameID = uuid.NewString()
			}
			_, err := run.AppendFrame(ctx, s.std.pool, s.std.log, s.frameRuns[client], f)
			return err
		}
		return load(ctx, batchRuns, d, 1, put)
	}, prepare: func(ctx context.Context) error {
		for len(s.frameRuns) < batchRuns {
			r, err := newRun(ctx, s.std)
			if err != nil {
				return err
			}
			s.frameRuns = append(s.frameRuns, r)
		}
		if !again {
			return nil
		}
		for i, r := range s.frameRuns {
			f := run.Frame{FrameID: ids[i], Type: "user_message", Payload: payload}
			if _, err := run.AppendFrame(telemetry.WithTrace(ctx, telemetry.NewTrace("", "", "")), s.std.pool, s.std.log, r, f); err != nil {
				return err
			}
		}
		return nil
	}}
}

// halfRate is 64 runs that append at half the rate that they could.
func (s *subjects) halfRate() cell {
	var most float64
	return cell{name: "append 64 at half rate", prepare: func(ctx context.Context) error {
		r, err := s.appends(s.first(batchRuns), 1, "").measure(ctx, s.o.each)
		most = r.perSecond
		return err
	}, measure: func(ctx context.Context, d time.Duration) (result, error) {
		ctx = telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
		return paced(ctx, batchRuns, most/2, d, func(ctx context.Context, client int) error {
			_, err := s.held[client].Commit(ctx, oneDelta)
			return err
		})
	}}
}

// hotRun is 8 writers of one run.
func (s *subjects) hotRun() cell {
	return cell{name: "hot run", measure: func(ctx context.Context, d time.Duration) (result, error) {
		ctx = telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
		return load(ctx, 8, d, 1, func(ctx context.Context, _ int) error {
			_, err := s.held[0].Commit(ctx, oneDelta)
			return err
		})
	}}
}
