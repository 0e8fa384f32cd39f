package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// quietNotify is a pg_notify that does nothing, for sessions that look into its
// schema first: all else about an append stays as it is.
const quietNotify = `CREATE SCHEMA quiet;
	CREATE FUNCTION quiet.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT NULL::void'`

// pen is an appender alone, with connections of its own, one for the log and one for notifications.
type pen struct {
	app  string
	pool *pgxpool.Pool
	log  *runlog.Appender
	runs []db.Run
	stop func() error
}

func newPen(ctx context.Context, s *subjects, app string, quiet bool) (*pen, error) {
	pool, err := openPool(ctx, pg.Config{URL: s.url, MaxConns: 2, AppName: app, ByKeyOnly: true}, func(c *pgxpool.Config) {
		if quiet {
			c.ConnConfig.RuntimeParams["search_path"] = "quiet, pg_catalog, " + pg.Schema
		}
	})
	if err != nil {
		return nil, err
	}
	p := &pen{app: app, pool: pool, log: runlog.NewAppender(pool, runlog.NewWatch(), 1, telemetry.NewMetrics())}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- p.log.Run(running) }()
	p.stop = func() error {
		stop()
		err := <-ended
		pool.Close()
		return err
	}
	for range batchRuns {
		r, err := newRun(ctx, s.std)
		if err != nil {
			return nil, errors.Join(err, p.stop())
		}
		p.runs = append(p.runs, r)
	}
	return p, nil
}

// wakes is 64 runs that append while so many connections listen, with the
// notifications of other processes on or off.
func (s *subjects) wakes(name string, listeners int, quiet bool) cell {
	var p *pen
	return cell{name: name, prepare: func(ctx context.Context) (err error) {
		if p, err = newPen(ctx, s, "bench "+name, quiet); err == nil {
			s.ends = append(s.ends, p.stop)
		}
		return err
	}, measure: func(ctx context.Context, d time.Duration) (r result, err error) {
		unlisten, err := listen(ctx, s.url, listeners)
		if err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, unlisten()) }()
		conn, err := pgx.Connect(ctx, s.url)
		if err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, conn.Close(ctx)) }()
		before, err := fsyncs(ctx, conn, p.app, p.pool.Reset)
		if err != nil {
			return r, err
		}
		trace := telemetry.NewTrace("", "", "")
		r, err = load(ctx, batchRuns, d, 1, func(ctx context.Context, client int) error {
			to := p.runs[client]
			_, err := p.log.Commit(ctx, runlog.Unit{RunKey: to.RunKey, RunID: to.RunID, Trace: trace, Decide: oneDelta})
			return err
		})
		if err != nil {
			return r, err
		}
		after, err := fsyncs(ctx, conn, p.app, p.pool.Reset)
		return r.with("per fsync", float64(r.done)/float64(max(1, after-before))), err
	}}
}

// listen has n connections hear of appends, as n processes do.
func listen(ctx context.Context, databaseURL string, n int) (stop func() error, err error) {
	running, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var conns []*pgx.Conn
	stop = func() error {
		cancel()
		wg.Wait()
		var errs []error
		for _, c := range conns {
			if !c.IsClosed() {
				errs = append(errs, c.Close(context.WithoutCancel(ctx)))
			}
		}
		return errors.Join(errs...)
	}
	for range n {
		c, err := pgx.Connect(ctx, databaseURL)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("a listening connection: %w", err), stop())
		}
		conns = append(conns, c)
		if _, err := c.Exec(ctx, "LISTEN "+runlog.Channel); err != nil {
			return nil, errors.Join(err, stop())
		}
		wg.Go(func() {
			for running.Err() == nil {
				if _, err := c.WaitForNotification(running); err != nil {
					return // stopped; the round after next connects anew
				}
			}
		})
	}
	return stop, nil
}
