package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/server"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

const (
	audience = "bench"
	poolSize = 36 // as many as there are clients that start runs, and some for the rest
	leaseTTL = 10 * time.Minute
)

// process is what one process of the service has, but for an executor: nobody
// answers the frames, so that only their acceptance is measured.
type process struct {
	// As in the service, streams and the log have connections of their own.
	pool, logPool, readPool *pgxpool.Pool

	asked   counter // by all three
	log     *runlog.Appender
	watch   *runlog.Watch
	leases  *lease.Keeper
	streams *stream.Handler
	url     string // of its API

	stop  context.CancelFunc
	loops errgroup.Group
	api   *http.Server
	ends  []func()
}

// newProcess starts a process with so many log lanes.
func newProcess(ctx context.Context, databaseURL string, lanes int) (*process, error) {
	p := &process{}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	if err := p.start(ctx, running, databaseURL, lanes); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *process) start(ctx, running context.Context, databaseURL string, lanes int) (err error) {
	size := poolSize
	if lanes == 1 { // the one to compare with, which only appends
		size = 4
	}
	for _, open := range []struct {
		pool **pgxpool.Pool
		c    pg.Config
	}{
		{&p.pool, pg.Config{MaxConns: size, AppName: "bench"}},
		{&p.logPool, pg.Config{MaxConns: lanes + 1, AppName: "bench log", ByKeyOnly: true}},
		{&p.readPool, pg.Config{MaxConns: 4, AppName: "bench streams", ByKeyOnly: true}},
	} {
		open.c.URL = databaseURL
		*open.pool, err = openPool(ctx, open.c, func(c *pgxpool.Config) { c.ConnConfig.Tracer = &p.asked })
		if err != nil {
			return err
		}
	}
	metrics, watch := telemetry.NewMetrics(), runlog.NewWatch()
	p.watch = watch
	p.log = runlog.NewAppender(p.logPool, watch, lanes, metrics)
	p.leases = lease.NewKeeper(p.pool, p.log, "bench", leaseTTL, metrics)
	p.loops.Go(func() error { return p.log.Run(running) })
	p.loops.Go(func() error { return p.leases.Run(running) })
	p.loops.Go(func() error { return watch.Tick(running, p.pool, time.Second) })
	listening := make(chan struct{}, 1)
	p.loops.Go(func() error {
		return pg.Listen(running, databaseURL, runlog.Channel, watch.Notified, func() {
			watch.WakeAll()
			select {
			case listening <- struct{}{}:
			default:
			}
		})
	})
	select {
	case <-listening:
	case <-ctx.Done():
		return ctx.Err()
	}
	streams := stream.New(p.readPool, watch, stream.Config{MaxReadersPerRun: 1100, MaxReaders: 12_000}, metrics)
	p.streams = streams
	p.ends = append(p.ends, streams.Shutdown)
	limits := server.DefaultAdmission()
	limits.MaxWaitingFrames, limits.OverdueRuns = 0, 0 // nobody answers the frames
	admission := server.NewAdmission(limits, p.pool, p.pool, p.log, metrics)
	p.loops.Go(func() error { return admission.Run(running) })
	return p.serve(ctx, server.Deps{
		Admission: admission,
		Answers:   &server.Server{Pool: p.pool, Log: p.log, Streams: streams, Admission: admission, Version: "bench"},
		Auth:      &auth.Verifier{Keys: auth.DevKeyring(), Audience: audience, Nonces: auth.NewNoncesTogether(p.pool)},
		Logger:    telemetry.NewLogger(io.Discard, slog.LevelInfo), Metrics: metrics,
	})
}

func (p *process) serve(ctx context.Context, d server.Deps) error {
	handler, err := server.New(server.Config{}, d)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.url = "http://" + l.Addr().String()
	p.api = server.HTTPServer(handler, server.HTTPConfig{}, d.Logger)
	p.loops.Go(func() error {
		if err := server.Serve(p.api, l, server.HTTPConfig{}); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}

func (p *process) close() error {
	var errs []error
	for _, end := range p.ends {
		end()
	}
	if p.api != nil {
		errs = append(errs, p.api.Close(), p.streams.Wait(context.Background()))
	}
	p.stop()
	errs = append(errs, p.loops.Wait())
	for _, pool := range []*pgxpool.Pool{p.logPool, p.readPool, p.pool} {
		if pool != nil {
			pool.Close()
		}
	}
	return errors.Join(errs...)
}
