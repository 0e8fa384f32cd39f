package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

var (
	// ErrHeld says that another executor holds the run, or writes to it just now.
	ErrHeld = errors.New("the run is held by another executor")
	// ErrLost says that the lease is not ours any more, or may not be.
	ErrLost = errors.New("the lease is lost")

	errLocked = errors.New("the head is locked")
)

// Keeper holds a process's leases and renews them all with one statement.
type Keeper struct {
	// Takes is the pool through which leases are taken and given back; nil for the
	// one that renews them. With one of its own, taking many at once, as after
	// another process has gone, does not hold up renewals.
	Takes *pgxpool.Pool

	pool  *pgxpool.Pool
	log   *runlog.Appender
	owner string
	ttl   time.Duration

	mu   sync.Mutex
	held map[uuid.UUID]*Held

	wishing  sync.Mutex
	wishes   []*wish
	granting bool // somebody is taking leases

	taken *prometheus.CounterVec
	lost  prometheus.Counter
	gauge prometheus.Gauge
}

// NewKeeper makes a keeper. owner names this process, for people; two
// processes of one name are still two holders.
func NewKeeper(pool *pgxpool.Pool, log *runlog.Appender, owner string, ttl time.Duration, m *telemetry.Metrics) *Keeper {
	return &Keeper{
		pool: pool, log: log, owner: owner, ttl: ttl, held: map[uuid.UUID]*Held{},
		taken: m.Counter(telemetry.LeaseAcquires),
		lost:  m.Counter(telemetry.LeaseLosses).WithLabelValues(),
		gauge: m.Gauge(telemetry.LeasesHeld).WithLabelValues(),
	}
}

// Run renews until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	t := time.NewTicker(k.ttl / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := k.Renew(ctx); err != nil && ctx.Err() == nil {
				slog.WarnContext(ctx, "leases were not renewed", "error", err.Error())
			}
		}
	}
}

// Renew renews every held lease once. A lease that the database does not renew
// is lost, and its holder's context ends.
func (k *Keeper) Renew(ctx context.Context) error {
	sent := time.Now()
	k.mu.Lock()
	params := db.RunLeaseRenewManyParams{Ttl: k.ttl}
	mine := make([]*Held, 0, len(k.held))
	for key, h := range k.held {
		params.RunKeys = append(params.RunKeys, key)
		params.LeaseEpochs = append(params.LeaseEpochs, h.Epoch)
		mine = append(mine, h)
	}
	k.mu.Unlock()
	if len(mine) == 0 {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, k.ttl/3)
	defer stop()
	renewed, err := db.New(k.pool).RunLeaseRenewMany(ctx, params)
	if err != nil {
		return fmt.Errorf("renew leases: %w", err)
	}
	still := make(map[uuid.UUID]bool, len(renewed))
	for _, key := range renewed {
		still[key] = true
	}
	for _, h := range mine {
		if still[h.RunKey] {
			h.trust(sent)
		} else if !h.over() {
			k.lost.Inc()
			h.cancel(ErrLost)
		}
	}
	return nil
}

// With takes the run's lease, calls f while it is held, and releases it. f's
// context ends when the lease is lost or its trust window is over. When f fails
// or panics, the lease is given back as a lost one, so that a run which fails
// its executors again and again is counted; an outage of the database, and
// a head that somebody else keeps locked, are not the run's fault. ErrHeld means that f was not called.
func (k *Keeper) With(ctx context.Context, r db.Run, f func(context.Context, *Held) error) error {
	h, err := k.acquire(ctx, r)
	if err != nil {
		return err
	}
	held, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h.begin(cancel)
	k.mu.Lock()
	k.held[r.RunKey] = h
	k.mu.Unlock()
	k.gauge.Inc()
	clean := false
	defer func() { k.end(ctx, h, clean) }()
	err = f(held, h)
	clean = err == nil || ctx.Err() != nil || pg.Outage(err) || errors.Is(err, runlog.ErrUnknown) || errors.Is(err, runlog.ErrLocked)
	return err
}

func (k *Keeper) takes() *pgxpool.Pool {
	if k.Takes != nil {
		return k.Takes
	}
	return k.pool
}

// evict ends who has the head locked although the lease has expired: a process
// that cannot be heard in the middle of a commit would keep it for ever. It always
// fails, with ErrHeld when that is done or not called for: the next tick takes the
// run.
func (k *Keeper) evict(ctx context.Context, r db.Run) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), k.ttl/3)
	defer stop()
	ended, err := db.New(k.takes()).RunLeaseEvict(ctx, db.RunLeaseEvictParams{RunKey: r.RunKey, Bound: k.ttl / 3})
	if err != nil {
		return fmt.Errorf("end who keeps the run locked: %w", err)
	}
	if len(ended) > 0 {
		slog.WarnContext(ctx, "sessions that kept a lost run locked were ended", "run_id", r.RunID, "sessions", len(ended))
	}
	return ErrHeld
}

// end gives back what no commit has released.
func (k *Keeper) end(ctx context.Context, h *Held, clean bool) {
	k.mu.Lock()
	if k.held[h.RunKey] == h {
		delete(k.held, h.RunKey)
	}
	k.mu.Unlock()
	k.gauge.Dec()
	if h.finish() {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), k.ttl/3)
	defer stop()
	err := db.New(k.takes()).RunLeaseRelease(ctx, db.RunLeaseReleaseParams{RunKey: h.RunKey, LeaseEpoch: h.Epoch, Released: clean})
	if err != nil {
		slog.WarnContext(ctx, "a lease was not given back and will expire", "run_id", h.RunID, "error", err.Error())
	}
}

// Keys are the runs that this process holds.
func (k *Keeper) Keys() []uuid.UUID {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys := make([]uuid.UUID, 0, len(k.held))
	for key := range k.held {
		keys = append(keys, key)
	}
	return keys
}
