package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/hook"
	"github.com/openagentsinc/openagents-runtime/internal/janitor"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/server"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/mcp"
	"github.com/openagentsinc/openagents-runtime/internal/tool/timeline"
	"github.com/openagentsinc/openagents-runtime/migrations"
)

// service is one process at work: its listeners, its executor, and what they
// share.
type service struct {
	c       config
	logger  *slog.Logger
	metrics *telemetry.Metrics
	model   model.Model

	// Each kind of work has connections of its own, so that none waits behind
	// another: answers, executions, upkeep, sweeps, the log, and streams.
	pool, workPool, upkeepPool   *pgxpool.Pool
	sweepPool, logPool, readPool *pgxpool.Pool

	watch     *runlog.Watch
	log       *runlog.Appender
	leases    *lease.Keeper
	executor  *executor.Executor
	streams   *stream.Handler
	admission *server.Admission
	secrets   *secret.Store
	catalog   *tool.Catalog
	rules     *policy.Rules
	tools     *tool.Runner
	mcp       *mcp.Servers
	timeline  timeline.Search
	refused   func(provider string) func(context.Context, *egress.Refusal) // counts them
	hooks     *hook.Registry
	local     *localWallet // nil unless the wallet is one
	janitor   *janitor.Janitor

	api, ops         *http.Server
	apiAddr, opsAddr net.Listener
	draining         chan struct{}
}

// newService builds the parts and opens the listeners. Nothing runs yet.
func newService(ctx context.Context, c config, logTo io.Writer) (*service, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return nil, err
	}
	s := &service{c: c, logger: telemetry.NewLogger(hidden{logTo}, level), metrics: telemetry.NewMetrics(), watch: runlog.NewWatch(), draining: make(chan struct{})}
	slog.SetDefault(s.logger)
	if err := s.build(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *service) build(ctx context.Context) error {
	// What the settings say is checked before anything is reached.
	if err := s.knowSecrets(); err != nil {
		return err
	}
	verifier, err := s.c.verifier(nil)
	if err != nil {
		return err
	}
	m, err := s.c.model()
	if err != nil {
		return err
	}
	if s.secrets, err = s.toolSecrets(); err != nil {
		return err
	}
	tools, err := s.shippedTools()
	if err != nil {
		return err
	}
	if s.catalog, err = tool.NewCatalog(append(tools, &s.timeline)...); err != nil {
		return err
	}
	if s.mcp, err = s.mcpServers(); err != nil {
		return err
	}
	if s.rules, err = policy.Load(s.c.ToolPolicy); err != nil {
		return fmt.Errorf("RUNTIME_TOOL_POLICY: %w", err)
	}
	if s.hooks, err = s.c.hooks(); err != nil {
		return fmt.Errorf("RUNTIME_HOOKS: %w", err)
	}
	if s.c.DatabaseURL == "" {
		return errNoDatabase
	}
	if err := verifySchema(ctx, s.c.DatabaseURL); err != nil {
		return err
	}
	if err := s.openPools(ctx); err != nil {
		return err
	}
	s.timeline.Pool = s.workPool
	verifier.Nonces = auth.NewNoncesTogether(s.pool)
	s.model = observe(m, s.metrics)
	s.log = runlog.NewAppender(s.logPool, s.watch, s.c.Lanes, s.metrics)
	s.janitor = janitor.New(s.metrics, sweeps(s.c, s.sweepPool, s.log, s.secrets)...)
	s.leases = lease.NewKeeper(s.upkeepPool, s.log, s.c.owner(), s.c.LeaseTTL, s.metrics)
	s.leases.Takes = s.workPool
	s.tools = tool.NewRunner(tool.Config{PerOwner: s.rules.Limits().ParallelTools}, s.catalog, s.metrics)
	s.executor = executor.New(s.c.executor(), s.workPool, s.watch, s.leases, predict.NewCaller(s.model, s.metrics),
		executor.Tools{Catalog: s.catalog, Runner: s.tools, Policy: s.rules, Rates: server.Rates(s.workPool), Hooks: s.hooks}, s.metrics)
	s.streams = stream.New(s.readPool, s.watch, stream.Config{}, s.metrics)
	s.admission = server.NewAdmission(s.c.admission(), s.upkeepPool, s.pool, s.log, s.metrics)
	return s.listen(verifier)
}

const (
	// streamConns bounds how many pages of logs are read for streams at once;
	// each takes a fraction of a millisecond.
	streamConns = 4
	// sweepConns is for the janitor: a long sweep must not hold up renewals.
	sweepConns = 2
)

func (s *service) openPools(ctx context.Context) error {
	serving, executing, upkeep := s.c.split()
	for _, p := range []struct {
		pool   **pgxpool.Pool
		config pg.Config
	}{
		{&s.pool, s.c.pool(serving, "serve")}, {&s.workPool, s.c.keyPool(executing, "execute")},
		{&s.upkeepPool, s.c.pool(upkeep, "upkeep")}, {&s.sweepPool, s.c.sweepPool()},
		{&s.logPool, s.c.logPool()}, {&s.readPool, s.c.keyPool(streamConns, "streams")},
	} {
		var err error
		if *p.pool, err = pg.Open(ctx, p.config); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) listen(verifier *auth.Verifier) error {
	specs, err := s.registry()
	if err != nil {
		return err
	}
	handler, err := server.New(server.Config{}, server.Deps{
		Answers: &server.Server{
			Pool: s.pool, Log: s.log, Watch: s.watch, Streams: s.streams, Admission: s.admission, Version: version,
			Tools:    server.Tools{Catalog: s.catalog, Rules: s.rules, Rates: server.Rates(s.pool), Breakers: s.tools.Breakers},
			Registry: specs,
			Draining: s.draining,
		},
		Auth: verifier, Admission: s.admission, Logger: s.logger, Metrics: s.metrics,
	})
	if err != nil {
		return err
	}
	ops := server.NewOps(server.OpsConfig{Version: version, Checks: s.checks(), Logger: s.logger, Metrics: s.metrics})
	if s.apiAddr, err = net.Listen("tcp", s.c.APIAddr); err != nil {
		return fmt.Errorf("RUNTIME_API_ADDR: %w", err)
	}
	if s.opsAddr, err = net.Listen("tcp", s.c.OpsAddr); err != nil {
		return fmt.Errorf("RUNTIME_OPS_ADDR: %w", err)
	}
	s.api = server.HTTPServer(handler, server.HTTPConfig{}, s.logger)
	s.ops = server.HTTPServer(ops, server.HTTPConfig{}, s.logger)
	return nil
}

func (s *service) checks() []server.Check {
	return []server.Check{
		{Name: "database", Ready: s.pool.Ping},
		{Name: "migrations", Ready: func(ctx context.Context) error {
			return pg.Verify(ctx, s.c.DatabaseURL, migrations.FS)
		}},
		{Name: "serving", Ready: func(context.Context) error {
			select {
			case <-s.draining:
				return errors.New("the process is stopping")
			default:
				return nil
			}
		}},
	}
}

// observe reports a model's calls to the metrics.
func observe(m model.Model, metrics *telemetry.Metrics) model.Model {
	calls := metrics.Counter(telemetry.ModelCalls)
	attempts := metrics.Counter(telemetry.ModelAttempts)
	seconds := metrics.Seconds(telemetry.ModelSeconds)
	first := metrics.Seconds(telemetry.ModelFirstDelta)
	return model.Observed{Model: m, Observe: func(o model.Observation) {
		calls.WithLabelValues(o.Provider, o.Outcome).Inc()
		attempts.WithLabelValues(o.Provider).Add(float64(o.Attempts))
		seconds.WithLabelValues(o.Provider).Observe(o.Duration.Seconds())
		if o.FirstDelta > 0 {
			first.WithLabelValues(o.Provider).Observe(o.FirstDelta.Seconds())
		}
	}}
}

// run works until ctx ends, then drains: the executor puts its pens down and
// gives its leases back, streams are told to come back elsewhere, requests in
// flight are answered, and the log is written to its end.
func (s *service) run(ctx context.Context) error {
	defer s.close()
	log := s.start("log", s.log.Run)
	beats := s.start("leases", s.leases.Run)
	work := s.start("executor", s.executor.Run)
	aux := s.start("followers", s.follow)
	upkeep := s.start("janitor", s.janitor.Run)
	peers := s.start("mcp", s.mcp.Run)
	var g errgroup.Group
	g.Go(func() error { return serving(server.Serve(s.api, s.apiAddr, server.HTTPConfig{})) })
	g.Go(func() error { return serving(server.Serve(s.ops, s.opsAddr, server.HTTPConfig{})) })
	failed := make(chan error, 1)
	go func() { failed <- g.Wait() }()

	var err error
	select {
	case <-ctx.Done():
		s.logger.Info("the process stops; runs are handed over")
	case err = <-failed:
	}
	close(s.draining)
	drained, stop := context.WithTimeout(context.WithoutCancel(ctx), s.c.DrainTimeout)
	defer stop()
	upkeep.stop()
	work.stop()
	peers.stop()
	s.streams.Shutdown()
	err = errors.Join(err, s.api.Shutdown(drained), s.streams.Wait(drained))
	aux.stop()
	beats.stop()
	log.stop()
	return errors.Join(err, s.ops.Shutdown(drained))
}

// follow keeps the watch awake: notifications of other processes, and a tick for
// the ones that are lost.
func (s *service) follow(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	gaps := s.metrics.Counter(telemetry.LogListenReconnects).WithLabelValues()
	g.Go(func() error {
		return pg.Listen(ctx, s.c.DatabaseURL, runlog.Channel, s.watch.Notified, func() {
			gaps.Inc()
			s.watch.WakeAll()
		})
	})
	g.Go(func() error { return s.watch.Tick(ctx, s.upkeepPool, time.Second) })
	g.Go(func() error { return s.admission.Run(ctx) })
	return g.Wait()
}

// worker is a loop of the service.
type worker struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (w worker) stop() {
	w.cancel()
	<-w.done
}

// start runs a loop until it is stopped. A loop that ends by itself is a fault
// that is logged; the others go on.
func (s *service) start(name string, loop func(context.Context) error) worker {
	ctx, cancel := context.WithCancel(context.Background())
	w := worker{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		if err := loop(ctx); err != nil && ctx.Err() == nil {
			s.logger.Error("a loop ended", "loop", name, "error", err.Error())
		}
	}()
	return w
}

func serving(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *service) close() {
	for _, l := range []net.Listener{s.apiAddr, s.opsAddr} {
		if l != nil {
			_ = l.Close() // a server that was shut down has closed it
		}
	}
	if s.local != nil {
		if err := s.local.close(); err != nil {
			s.logger.Error("the local wallet was not closed", "error", err.Error())
		}
	}
	for _, p := range []*pgxpool.Pool{s.logPool, s.readPool, s.sweepPool, s.upkeepPool, s.workPool, s.pool} {
		if p != nil {
			p.Close()
		}
	}
}
