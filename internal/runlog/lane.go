package runlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
)

// lane writes the units of its runs, many in one transaction.
type lane struct {
	a     *Appender
	queue chan *item
	known known
	stuck stuck

	controlRows, deltaRows int // of the last batch: about what the next one needs
}

func (l *lane) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			l.drain()
			return nil
		case first := <-l.queue:
			l.write(l.gather(first))
		}
	}
}

// drain writes what waits and lets nobody wait for a lane that is gone.
func (l *lane) drain() {
	for {
		select {
		case first := <-l.queue:
			l.write(l.gather(first))
		default:
			return
		}
	}
}

// gather takes what waits; there is no timer, so a lone unit never waits. The
// callers whom the last commit answered are let run first: else the fastest of
// them would get a commit of its own, and the others the next one.
func (l *lane) gather(first *item) []*item {
	var items []*item
	take := func(it *item) {
		if it.state.CompareAndSwap(waiting, taken) {
			items = append(items, it)
		}
	}
	take(first)
	runtime.Gosched()
	for len(items) < batchUnits {
		select {
		case it := <-l.queue:
			take(it)
			continue
		default:
		}
		break
	}
	return items
}

// write commits the items together. When the database refuses one of the
// statements, each half is tried alone, so that only the items at fault fail and
// the others still share commits.
func (l *lane) write(items []*item) {
	if len(items) == 0 {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), commitTimeout)
	defer stop()
	begun := time.Now()
	b, err := l.commit(ctx, items)
	if refused(err) && len(items) > 1 {
		half := len(items) / 2
		l.write(items[:half])
		l.write(items[half:])
		return
	}
	l.controlRows, l.deltaRows = len(b.rows.Seqs), len(b.deltas.Seqs)
	l.a.units.Observe(float64(len(items)))
	l.a.seconds.Observe(time.Since(begun).Seconds())
	var again []*item
	for _, it := range items {
		switch out, ok := b.out[it]; {
		case ok && out.err != nil && out.unwritten && err != nil:
			again = append(again, it)
		case ok && out.err != nil:
			it.answer(Ack{}, out.err)
		case err != nil:
			it.answer(Ack{}, err)
		default:
			it.answer(out.ack, nil)
		}
	}
	// Refused because of what was not written, or may not be: they decide anew.
	l.write(again)
	if err == nil {
		l.a.watch.Wake(b.grown, slices.Collect(maps.Keys(b.work)))
		l.a.others.tell(b.grown, b.work)
		b.count(l.a.events)
	}
}

// count adds the batch's events to a counter by type.
func (b *batch) count(events *prometheus.CounterVec) {
	byType := map[string]int{}
	for _, types := range [][]string{b.rows.EventTypes, b.deltas.EventTypes} {
		for _, t := range types {
			byType[t]++
		}
	}
	for t, n := range byType {
		events.WithLabelValues(t).Add(float64(n))
	}
}

func (l *lane) newBatch(heads map[uuid.UUID]*Head) *batch {
	return &batch{
		out: map[*item]outcome{}, heads: heads, has: map[uuid.UUID]bool{}, work: map[uuid.UUID]bool{},
		rows: roomFor(l.controlRows), deltas: roomFor(l.deltaRows),
	}
}

// roomFor has room for n events, so that a large batch is not copied as it grows.
func roomFor(n int) db.RunLogInsertManyParams {
	return db.RunLogInsertManyParams{
		RunKeys: make([]uuid.UUID, 0, n), Seqs: make([]int64, 0, n),
		EventTypes: make([]string, 0, n), EventVersions: make([]int32, 0, n), Payloads: make([]string, 0, n),
		ContentHashes: make([][]byte, 0, n), EventHashes: make([][]byte, 0, n),
		Traceparents: make([]string, 0, n), Tracestates: make([]string, 0, n), RequestIds: make([]string, 0, n),
	}
}

// commit writes the items in one transaction: in one round trip when all heads
// are known, else in two, of which the first locks and reads them.
func (l *lane) commit(ctx context.Context, items []*item) (b *batch, err error) {
	defer func() {
		if err != nil {
			l.known.forget(items)
		} else {
			l.known.remember(b)
		}
	}()
	conn, err := l.a.pool.Acquire(ctx)
	if err != nil {
		return l.newBatch(nil), fmt.Errorf("append: %w", err)
	}
	defer conn.Release()
	if l.stuck.among(items) {
		return l.askFree(ctx, conn.Conn(), items)
	}
	b, ok, err := l.believe(ctx, conn.Conn(), items)
	switch {
	case err == nil && ok:
		return b, nil
	case err == nil:
		b, err = l.ask(ctx, conn.Conn(), items)
	default:
		b = l.newBatch(nil)
	}
	if errors.Is(err, ErrLocked) {
		return l.askFree(ctx, conn.Conn(), items)
	}
	return b, err
}

// ask decides under locked heads, for which it waits.
func (l *lane) ask(ctx context.Context, conn *pgx.Conn, items []*item) (*batch, error) {
	b := l.newBatch(map[uuid.UUID]*Head{})
	if err := b.lock(ctx, conn, items, true); err != nil {
		return b, rollback(conn, err)
	}
	return b, b.decideAndStore(ctx, conn, items)
}

// decideAndStore lets the items decide by the locked heads, and writes.
func (b *batch) decideAndStore(ctx context.Context, conn *pgx.Conn, items []*item) error {
	crash.At("commit.locked")
	for _, it := range items {
		unwritten := b.has[it.unit.RunKey]
		ack, err := b.add(it.unit)
		b.out[it] = outcome{ack, err, unwritten}
	}
	if b.empty() {
		return rollback(conn, nil)
	}
	if err := b.store(ctx, conn); err != nil {
		return rollback(conn, err)
	}
	return nil
}

// rollback ends the transaction and passes cause on. A connection on which
// even that fails is closed by the pool.
func rollback(conn *pgx.Conn, cause error) error {
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil && cause == nil {
		return fmt.Errorf("append: roll back: %w", err)
	}
	return cause
}

type outcome struct {
	ack       Ack
	err       error
	unwritten bool // decided by a head that the batch has yet to write
}

// batch is what one transaction writes.
type batch struct {
	out    map[*item]outcome
	heads  map[uuid.UUID]*Head
	grown  []uuid.UUID
	has    map[uuid.UUID]bool        // what grown holds
	work   map[uuid.UUID]bool        // among grown, those with a new frame or cancel
	rows   db.RunLogInsertManyParams // control events
	deltas db.RunLogInsertManyParams
	stmts  []func(q *db.Queries) error
	joints []Joint
}

// empty says whether there is nothing to write.
func (b *batch) empty() bool { return len(b.grown) == 0 && len(b.stmts) == 0 && len(b.joints) == 0 }

// lock begins the transaction and locks the heads of all runs, in key order; it
// waits for those that others have locked, or leaves them out.
func (b *batch) lock(ctx context.Context, conn *pgx.Conn, items []*item, wait bool) error {
	keys := keysOf(items)
	pb := &pgx.Batch{}
	pb.Queue("BEGIN")
	q := db.New(queuer{batch: pb, rows: func(rows pgx.Rows) error {
		defer rows.Close()
		for rows.Next() {
			var r db.RunHead
			if err := rows.Scan(&r.RunKey, &r.LatestSeq, &r.LatestHash, &r.OldestSeq, &r.FloorHash, &r.LeaseEpoch,
				&r.FrameCount, &r.FramePosition, &r.Status, &r.CancelRequested); err != nil {
				return err
			}
			b.heads[r.RunKey] = HeadOf(r)
		}
		return rows.Err()
	}})
	lock := q.RunHeadLockMany
	if !wait {
		lock = func(ctx context.Context, keys []uuid.UUID) ([]db.RunHead, error) {
			_, err := q.RunHeadLockFree(ctx, keys)
			return nil, err
		}
	}
	if _, err := lock(ctx, keys); !errors.Is(err, errQueued) {
		return err
	}
	err := conn.SendBatch(ctx, pb).Close()
	switch {
	case err == nil:
		return nil
	case busy(err):
		return fmt.Errorf("append: %w: %w", ErrLocked, err)
	}
	return fmt.Errorf("append: lock the heads: %w", err)
}

// HeadOf reads a stored head.
func HeadOf(r db.RunHead) *Head {
	h := &Head{Seq: r.LatestSeq, Oldest: r.OldestSeq, Epoch: r.LeaseEpoch, FrameCount: r.FrameCount,
		FramePosition: r.FramePosition, Status: r.Status, CancelRequested: r.CancelRequested}
	copy(h.Hash[:], r.LatestHash)
	if r.FloorHash != nil {
		h.FloorHash = (*[32]byte)(r.FloorHash)
	}
	return h
}

// add lets a unit decide under the locked head and notes what it writes.
func (b *batch) add(u Unit) (Ack, error) {
	h := b.heads[u.RunKey]
	switch {
	case h == nil:
		return Ack{}, ErrNoRun
	case u.Epoch != 0 && u.Epoch != h.Epoch:
		return Ack{}, ErrFenced
	case u.ExpectSeq != nil && *u.ExpectSeq != h.Seq:
		return Ack{}, fmt.Errorf("%w: the head is at %d, not %d", ErrSeq, h.Seq, *u.ExpectSeq)
	}
	change, err := decide(u, *h)
	if err != nil {
		return Ack{}, err
	}
	if len(change.Events) == 0 && len(change.Rows) == 0 {
		b.joints = append(b.joints, change.Joints...)
		return Ack{FirstSeq: h.Seq + 1, LastSeq: h.Seq, Head: *h}, nil
	}
	if Terminal(h.Status) {
		return Ack{}, ErrFinished
	}
	next := *h
	first := next.Seq + 1
	if err := b.addEvents(u, &next, change); err != nil {
		return Ack{}, err
	}
	if change.Status != "" {
		next.Status = change.Status
	}
	next.FrameCount += change.FrameCount
	next.FramePosition += change.FramePosition
	next.CancelRequested = next.CancelRequested || change.CancelRequested
	for _, row := range change.Rows {
		b.stmts = append(b.stmts, func(q *db.Queries) error { return row(q, first) })
	}
	b.joints = append(b.joints, change.Joints...)
	if next.Seq > h.Seq || change.Work {
		b.grow(u.RunKey)
	}
	if change.FrameCount > 0 || change.CancelRequested || change.Work {
		b.work[u.RunKey] = true
	}
	*h = next
	return Ack{FirstSeq: first, LastSeq: next.Seq, Head: next}, nil
}

// decide keeps a panic of one unit from the others of the lane.
func decide(u Unit, h Head) (change Change, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("append: the unit panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return u.Decide(h)
}

func (b *batch) grow(key uuid.UUID) {
	if !b.has[key] {
		b.has[key] = true
		b.grown = append(b.grown, key)
	}
}

func (b *batch) addEvents(u Unit, next *Head, change Change) error {
	rows := make([]stored, 0, len(change.Events))
	for _, e := range change.Events {
		s, err := store(u.RunID, next.Seq+1, e, canon.Digest(next.Hash))
		if err != nil {
			return err
		}
		next.Seq, next.Hash = next.Seq+1, s.hash
		rows = append(rows, s)
	}
	for i, s := range rows {
		r := &b.rows
		if isDelta(s.eventType) {
			r = &b.deltas
		}
		r.RunKeys = append(r.RunKeys, u.RunKey)
		r.Seqs = append(r.Seqs, next.Seq-int64(len(rows)-1-i))
		r.EventTypes = append(r.EventTypes, s.eventType)
		r.EventVersions = append(r.EventVersions, int32(s.version))
		r.Payloads = append(r.Payloads, string(s.payload))
		r.ContentHashes = append(r.ContentHashes, s.content[:])
		r.EventHashes = append(r.EventHashes, s.hash[:])
		r.Traceparents = append(r.Traceparents, u.Trace.Parent)
		r.Tracestates = append(r.Tracestates, u.Trace.State)
		r.RequestIds = append(r.RequestIds, u.Trace.RequestID)
	}
	return nil
}

// store writes everything under locked heads and commits, in one round trip.
func (b *batch) store(ctx context.Context, conn *pgx.Conn) error {
	pb := &pgx.Batch{}
	q := db.New(queuer{batch: pb})
	if err := b.queueHeads(ctx, q); err != nil {
		return err
	}
	if err := b.queueRows(ctx, q); err != nil {
		return err
	}
	pb.Queue("COMMIT")
	return outcomeOf(conn.SendBatch(ctx, pb).Close())
}

// outcomeOf says what an error of the statements that commit means.
func outcomeOf(err error) error {
	switch {
	case err == nil:
		return nil
	case busy(err):
		return fmt.Errorf("append: %w: %w", ErrLocked, err)
	case refused(err):
		return fmt.Errorf("append: %w", err)
	default:
		// The connection broke, perhaps after the server had committed.
		return fmt.Errorf("append: %w: %w", ErrUnknown, err)
	}
}

// refused says whether the server has refused a statement, and so the whole
// transaction. A FATAL error ends the session and may follow a commit.
func refused(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.SeverityUnlocalized == "ERROR"
}

// queueRows queues the events and the units' rows.
func (b *batch) queueRows(ctx context.Context, q *db.Queries) error {
	if len(b.rows.Seqs) > 0 {
		if err := q.RunLogInsertMany(ctx, b.rows); err != nil {
			return err
		}
	}
	if len(b.deltas.Seqs) > 0 {
		if err := q.RunLogDeltaInsertMany(ctx, db.RunLogDeltaInsertManyParams(b.deltas)); err != nil {
			return err
		}
	}
	for _, stmt := range b.stmts {
		if err := stmt(q); err != nil {
			return err
		}
	}
	if len(b.joints) > 0 {
		return b.joints[0].Join(q, b.joints)
	}
	return nil
}

// queueHeads queues the new heads of logs that are locked.
func (b *batch) queueHeads(ctx context.Context, q *db.Queries) error {
	if len(b.grown) == 0 {
		return nil
	}
	var heads db.RunHeadUpdateManyParams
	for _, key := range b.grown {
		h := b.heads[key]
		heads.RunKeys = append(heads.RunKeys, key)
		heads.LatestSeqs = append(heads.LatestSeqs, h.Seq)
		heads.LatestHashes = append(heads.LatestHashes, h.Hash[:])
		heads.FrameCounts = append(heads.FrameCounts, h.FrameCount)
		heads.FramePositions = append(heads.FramePositions, h.FramePosition)
		heads.Statuses = append(heads.Statuses, h.Status)
		heads.CancelRequesteds = append(heads.CancelRequesteds, h.CancelRequested)
	}
	return q.RunHeadUpdateMany(ctx, heads)
}
