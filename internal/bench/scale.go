package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

const (
	stormSpread = 5 * time.Second
	stormEvents = 100
)

// storm is many streams that reconnect within 5 s, each with a cursor 50 events
// behind, until all have what they missed.
func (s *subjects) storm() cell {
	return cell{name: "storm", most: fewRounds, measure: func(ctx context.Context, _ time.Duration) (r result, err error) {
		k, err := s.kit(ctx)
		if err != nil {
			return r, err
		}
		runs := max(1, s.o.size.idle/20)
		made, err := k.ours.ask(order{Do: "runs", N: runs})
		if err != nil {
			return r, err
		}
		if _, err := k.ours.ask(order{Do: "grow", N: stormEvents}); err != nil {
			return r, err
		}
		before, err := k.ours.ask(order{Do: "stat"})
		if err != nil {
			return r, err
		}
		begun := time.Now()
		defer func() {
			_, closeErr := k.watch.ask(order{Do: "close"})
			err = errors.Join(err, closeErr)
		}()
		_, err = k.watch.ask(order{Do: "open", URL: k.ours.hello.URL, Runs: made.Runs, N: s.o.size.idle,
			Cursor: stormEvents / 2, Until: stormEvents + 1, Connect: stormSpread})
		if err != nil {
			return r, err
		}
		if _, err := k.watch.ask(order{Do: "caught", For: time.Minute}); err != nil {
			return r, err
		}
		took := time.Since(begun)
		after, err := k.ours.ask(order{Do: "stat"})
		if err != nil {
			return r, err
		}
		n := float64(runs)
		return r.with("took", took.Seconds()).with("queries", float64(after.Asked-before.Asked)/n).
			with("logs", float64(after.Logs-before.Logs)/n), nil
	}}
}

// overload sends frames at half of what the service can take, then at three
// times that.
func (s *subjects) overload() cell {
	return cell{name: "overload", most: fewRounds, measure: func(ctx context.Context, d time.Duration) (r result, err error) {
		k, err := s.kit(ctx)
		if err != nil {
			return r, err
		}
		made, err := k.ours.ask(order{Do: "runs", N: 256})
		if err != nil {
			return r, err
		}
		frames := order{Do: "post", URL: k.ours.hello.URL, Runs: made.Runs, N: maxPosters, For: 2 * d}
		most, err := k.watch.ask(frames)
		if err != nil {
			return r, err
		}
		capacity := float64(most.Done) / most.Took.Seconds()
		frames.Rate = capacity / 2
		normal, err := k.watch.ask(frames)
		if err != nil {
			return r, err
		}
		frames.Rate = capacity * 3
		over, err := k.watch.ask(frames)
		if err != nil {
			return r, err
		}
		r.p99 = over.P99
		offered := float64(over.Done+over.Refused) / over.Took.Seconds()
		return r.with("accepted", float64(over.P99)/float64(normal.P99)).with("refusal", float64(over.RefusedP99.Microseconds())/1000).
			with("offered", offered/capacity).with("refused", float64(over.Refused)/float64(over.Done+over.Refused)), nil
	}}
}

// snapshot is what an append takes while somebody has held a snapshot for a
// while under load, against before.
func (s *subjects) snapshot() cell {
	return cell{name: "snapshot", most: 1, measure: func(ctx context.Context, d time.Duration) (r result, err error) {
		ctx = telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
		work := s.appends(s.first(8), 1, "")
		before, err := work.measure(ctx, 2*d)
		if err != nil {
			return r, err
		}
		conn, err := pgx.Connect(ctx, s.url)
		if err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, conn.Close(ctx)) }()
		if _, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM runtime.run_heads"); err != nil {
			return r, err
		}
		if _, err := work.measure(ctx, s.o.size.snapshot); err != nil {
			return r, err
		}
		held, err := work.measure(ctx, 2*d)
		if err != nil {
			return r, err
		}
		if _, err := conn.Exec(ctx, "COMMIT"); err != nil {
			return r, err
		}
		return held.with("held", float64(held.p50)/float64(before.p50)), nil
	}}
}

// program is the service, as `make build` makes it.
const program = "bin/openagents-runtime"

// quiet is what the whole service asks the database while it has nothing to do.
func (s *subjects) quiet() cell {
	return cell{name: "quiet", most: 1, measure: func(ctx context.Context, _ time.Duration) (r result, err error) {
		empty, err := s.database.another(ctx)
		if err != nil {
			return r, err
		}
		cmd := exec.Command(program, "serve")
		cmd.Env = append(os.Environ(), "DATABASE_URL="+empty, "RUNTIME_ENV=dev", "RUNTIME_API_ADDR=127.0.0.1:0", "RUNTIME_OPS_ADDR=127.0.0.1:0")
		if err := cmd.Start(); err != nil {
			return r, fmt.Errorf("start the service (make build makes it): %w", err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		defer func() {
			err = errors.Join(err, cmd.Process.Signal(os.Interrupt), <-ended)
		}()
		conn, err := pgx.Connect(ctx, s.url)
		if err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, conn.Close(ctx)) }()
		// A session reports what it did up to ten seconds later.
		count := func(wait time.Duration) (n float64, err error) {
			if err := until(ctx, time.Now().Add(wait)); err != nil {
				return 0, err
			}
			err = conn.QueryRow(ctx, `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database() || '_empty'`).Scan(&n)
			return n, err
		}
		before, err := count(s.o.size.settle)
		if err != nil {
			return r, err
		}
		after, err := count(s.o.size.quiet)
		return r.with("queries", (after-before)/s.o.size.quiet.Seconds()), err
	}}
}

func scaleRows() []row {
	own := func(what, cell, name, unit string, floor, goal float64) row {
		return row{what: what, ours: cell, unit: unit, figure: value(name), want: want{itself, floor, goal}}
	}
	return []row{
		own("10,000 streams reconnect in 5 s with cursors, until all are caught up [15]", "storm", "took", "s, lower is better", 15, 15),
		own("the same, questions to the database per run [15]", "storm", "queries", "per run, lower is better", 2, 2),
		own("the same, pages of logs read per run [15]", "storm", "logs", "per run, lower is better", 2, 2),
		own("frames at 3 times the capacity, p99 of the accepted, against p99 at half of it [17]", "overload", "accepted", aRatio, 2, 2),
		own("frames at 3 times the capacity, p99 of a refusal [17]", "overload", "refusal", inMillis, 50, 50),
		{what: "frames at 3 times the capacity, reached of the offered [17]", ours: "overload", unit: "times the capacity, higher is better", figure: value("offered")},
		{what: "frames at 3 times the capacity, refused [17]", ours: "overload", unit: "share, lower is better", figure: value("refused")},
		own("append p50 while a snapshot is held under load, against before [16]", "snapshot", "held", aRatio, 1.3, 1.3),
		own("an idle process asks the database [18]", "quiet", "queries", perSecQ, 2, 2),
	}
}

func (s *subjects) scaleCells() []cell {
	return []cell{s.storm(), s.overload(), s.snapshot(), s.quiet()}
}
