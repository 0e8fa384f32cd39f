package runlog

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
	"github.com/prometheus/client_golang/prometheus"
)

// Channel is the notification channel; a payload is its sender and run keys,
// comma separated.
const Channel = "runtime_run_events"

const (
	queueUnits    = 4096             // units that may wait in a lane
	batchUnits    = 256              // units that share one commit at the most
	commitTimeout = 30 * time.Second // after which a commit's outcome is not known
)

// Appender is a process's one way to change logs. It has a few lanes, each
// with its own connection; a run always goes through the same lane. A lane
// writes in one transaction whatever came while the last one was flushed.
type Appender struct {
	pool   *pgxpool.Pool
	watch  *Watch
	others *notifier
	lanes  []*lane
	ended  chan struct{} // closed when Run returns

	units   prometheus.Observer
	events  *prometheus.CounterVec
	seconds prometheus.Observer
	refused *prometheus.CounterVec
}

// NewAppender makes an appender of so many lanes. With two, one lane's statements
// run while the other's flush; more gain nothing. Each lane uses one of the pool's
// connections at a time, and notifications one more.
func NewAppender(pool *pgxpool.Pool, watch *Watch, lanes int, m *telemetry.Metrics) *Appender {
	a := &Appender{
		pool: pool, watch: watch, others: newNotifier(pool, watch.sender), ended: make(chan struct{}),
		units:   m.Sizes(telemetry.LogCommitUnits, batchUnits).WithLabelValues(),
		events:  m.Counter(telemetry.LogEvents),
		seconds: m.Seconds(telemetry.LogCommitSeconds).WithLabelValues(),
		refused: m.Counter(telemetry.LogUnitsRefused),
	}
	for range max(1, lanes) {
		a.lanes = append(a.lanes, newLane(a))
	}
	return a
}

// Run writes until ctx ends, then writes what was taken and returns. Units that
// come later are answered ErrStopped.
func (a *Appender) Run(ctx context.Context) error {
	defer close(a.ended)
	quit, told := make(chan struct{}), make(chan error, 1)
	go func() { told <- a.others.run(quit) }()
	var g errgroup.Group
	for _, l := range a.lanes {
		g.Go(func() error { return l.run(ctx) })
	}
	err := g.Wait()
	close(quit)
	return errors.Join(err, <-told)
}

// Commit writes one unit and returns when it is durable, or refused. When ctx
// ends while the unit still waits its turn, nothing is written.
func (a *Appender) Commit(ctx context.Context, u Unit) (Ack, error) {
	it := &item{unit: u, done: make(chan struct{})}
	l := a.laneOf(u.RunKey)
	if ctx.Err() == nil && l.alone(it) {
		return it.ack, a.count(it.err)
	}
	select {
	case l.queue <- it:
	default:
		a.refused.WithLabelValues("busy").Inc()
		return Ack{}, ErrBusy
	}
	select {
	case <-it.done:
	case <-ctx.Done():
		if it.state.CompareAndSwap(waiting, withdrawn) {
			return Ack{}, ctx.Err()
		}
		<-it.done
	case <-a.ended:
		if it.state.CompareAndSwap(waiting, withdrawn) {
			return Ack{}, ErrStopped
		}
		<-it.done
	}
	return it.ack, a.count(it.err)
}

// count counts a unit that was refused by its cause.
func (a *Appender) count(err error) error {
	if err != nil {
		a.refused.WithLabelValues(cause(err)).Inc()
	}
	return err
}

func (a *Appender) laneOf(key uuid.UUID) *lane {
	return a.lanes[binary.BigEndian.Uint64(key[8:])%uint64(len(a.lanes))]
}

func cause(err error) string {
	switch {
	case errors.Is(err, ErrFenced):
		return "fenced"
	case errors.Is(err, ErrFinished):
		return "finished"
	case errors.Is(err, ErrSeq):
		return "seq"
	case errors.Is(err, ErrUnknown):
		return "unknown"
	case errors.Is(err, ErrLocked):
		return "locked"
	default:
		return "other"
	}
}

// item is a unit in a lane's queue.
type item struct {
	unit  Unit
	state atomic.Int32
	ack   Ack
	err   error
	done  chan struct{}
}

const (
	waiting int32 = iota
	taken
	withdrawn
)

func (it *item) answer(ack Ack, err error) {
	it.ack, it.err = ack, err
	close(it.done)
}
