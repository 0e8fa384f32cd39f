package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// eatMemory lets the victim run out of memory.
func eatMemory(ctx context.Context, t *trial) error {
	select {
	case <-t.victim.done:
	case <-time.After(8 * time.Second):
		return errMissed
	case <-ctx.Done():
		return ctx.Err()
	}
	if said := t.victim.said.String(); !strings.Contains(said, "out of memory") && !strings.Contains(said, "cannot allocate memory") {
		return fmt.Errorf("the victim ended for another reason (%s):\n%s", t.victim.cmd.ProcessState, said)
	}
	if err := t.noteLosses(ctx, t.victim, t.victim.Ended); err != nil {
		return err
	}
	return t.replace(ctx)
}

// killAll kills every process at once and starts as many others after a while.
func (t *trial) killAll(ctx context.Context, away time.Duration) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	all := t.fleet.living()
	for _, p := range all {
		if err := p.signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	for _, p := range all {
		<-p.done
	}
	for _, p := range all {
		if err := t.noteLosses(ctx, p, p.Ended); err != nil {
			return err
		}
	}
	if err := rig.Pause(ctx, away); err != nil {
		return err
	}
	for range all {
		if err := t.add(ctx); err != nil {
			return err
		}
	}
	return nil
}

// busy waits until so many runs are held.
func (t *trial) busy(ctx context.Context, runs int) error {
	for late := time.Now().Add(5 * time.Second); ; {
		var n int
		err := t.w.db.pool.QueryRow(ctx, "SELECT count(*) FROM run_leases WHERE NOT released AND lease_expires_at > clock_timestamp()").Scan(&n)
		switch {
		case err != nil:
			return err
		case n >= runs:
			return nil
		case time.Now().After(late):
			return errMissed
		}
		if err := rig.Pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// killEverybody wants two thirds of the runs to have been at work.
func killEverybody(ctx context.Context, t *trial) error {
	if err := t.killAll(ctx, 0); err != nil {
		return err
	}
	if len(t.losses) < len(t.runs)*2/3 {
		return errMissed
	}
	return nil
}

// nobodyForLong leaves runs without anybody who could take them over for 10 TTL.
func nobodyForLong(ctx context.Context, t *trial) error {
	err := t.killAll(ctx, 10*t.w.ttl)
	if err == nil && len(t.losses) == 0 {
		err = errMissed
	}
	t.over = time.Now()
	return err
}

// restartEach replaces one process after another.
func restartEach(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	for _, p := range t.fleet.living() {
		if err := t.add(ctx); err != nil {
			return err
		}
		if err := t.drained(p); err != nil {
			return err
		}
	}
	return nil
}

// throttle leaves the victim a tenth of the time for 3 TTL.
func throttle(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	for end := time.Now().Add(3 * t.w.ttl); time.Now().Before(end); {
		if err := t.victim.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		if err := rig.Pause(ctx, 90*time.Millisecond); err != nil {
			return err
		}
		if err := t.victim.signal(syscall.SIGCONT); err != nil {
			return err
		}
		if err := rig.Pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	t.over = time.Now()
	return nil
}

// killBackend kills one of the victim's backends, which makes Postgres end all
// sessions and recover.
func killBackend(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	var pid int
	err := t.w.db.pool.QueryRow(ctx, "SELECT pid FROM pg_stat_activity WHERE usename = 'victim' ORDER BY random() LIMIT 1").Scan(&pid)
	if err != nil {
		return err
	}
	var before, after time.Time
	if err := t.w.db.pool.QueryRow(ctx, "SELECT max(backend_start) FROM pg_stat_activity WHERE backend_type = 'checkpointer'").Scan(&before); err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill a backend: %w", err)
	}
	for late := time.Now().Add(20 * time.Second); !after.After(before); {
		if err := rig.Pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
		err := t.w.db.pool.QueryRow(ctx, "SELECT coalesce(max(backend_start), 'epoch') FROM pg_stat_activity WHERE backend_type = 'checkpointer'").Scan(&after)
		if err != nil && time.Now().After(late) {
			return err
		}
		if err == nil && time.Now().After(late) {
			return errors.New("a backend was killed and Postgres has not started anew")
		}
	}
	t.over = time.Now()
	return nil
}

// terminate ends a random one of some sessions every so often, for 2 TTL.
func (t *trial) terminateSome(ctx context.Context, every time.Duration, which string) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	ended := 0
	for end := time.Now().Add(2 * t.w.ttl); time.Now().Before(end); {
		var n int
		err := t.w.db.pool.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM (
			SELECT pid FROM pg_stat_activity WHERE usename IN ('victim', 'other') AND `+which+` ORDER BY random() LIMIT 1) one`).Scan(&n)
		if err != nil {
			return err
		}
		ended += n
		if err := rig.Pause(ctx, every); err != nil {
			return err
		}
	}
	t.over = time.Now()
	if ended < 3 {
		return errMissed
	}
	return nil
}

func terminateAny(ctx context.Context, t *trial) error {
	return t.terminateSome(ctx, 100*time.Millisecond, "true")
}

func terminateListeners(ctx context.Context, t *trial) error {
	return t.terminateSome(ctx, 100*time.Millisecond, "application_name LIKE '%listen%'")
}

// oneWay loses what goes in one direction for 2 TTL.
func oneWay(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	if err := t.victim.line.deafen([]string{"upstream", "downstream"}[t.rng.IntN(2)]); err != nil {
		return err
	}
	if err := rig.Pause(ctx, 2*t.w.ttl); err != nil {
		return err
	}
	t.victim.line.clear(ctx)
	t.over = time.Now()
	return nil
}

// cutInside ends the victim's connections when each has brought so many bytes
// more, which is mostly in the middle of a batch of statements.
func cutInside(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	for range 5 {
		if err := t.victim.line.limit(1 + t.rng.IntN(4000)); err != nil {
			return err
		}
		if err := rig.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		t.victim.line.clear(ctx)
		if err := rig.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	t.over = time.Now()
	return nil
}

// slowLines makes every process's line to the database slow until the end.
func slowLines(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	for _, p := range t.fleet.living() {
		if err := p.line.slow(); err != nil {
			return err
		}
	}
	conn, err := pgx.Connect(ctx, t.w.db.URL(t.victim.line.address()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // it has said all it had to
	begun := time.Now()
	for range 10 {
		if err := conn.Ping(ctx); err != nil {
			return err
		}
	}
	if took := time.Since(begun); took < 300*time.Millisecond {
		return fmt.Errorf("ten questions over a slow line take %s", took)
	}
	return nil
}

// armed lets a function of the rigging do its harm for a while.
func (t *trial) armed(ctx context.Context, what string, d time.Duration) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	before, err := t.w.db.raised(ctx)
	if err != nil {
		return err
	}
	if err := t.w.db.arm(ctx, what); err != nil {
		return err
	}
	if err := rig.Pause(ctx, d); err != nil {
		return err
	}
	if err := t.w.db.disarm(ctx); err != nil {
		return err
	}
	t.over = time.Now()
	after, err := t.w.db.raised(ctx)
	if err == nil && after < before+3 {
		err = errMissed
	}
	return err
}

func failAtRandom(ctx context.Context, t *trial) error { return t.armed(ctx, "fail", 2*t.w.ttl) }

func commitSlowly(ctx context.Context, t *trial) error { return t.armed(ctx, "slow", 2*t.w.ttl) }

// refuseConnections ends the victim's sessions that serve, execute and append,
// and lets it make no others for 2 TTL.
func refuseConnections(ctx context.Context, t *trial) (err error) {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	if _, err := t.w.db.pool.Exec(ctx, "ALTER ROLE victim CONNECTION LIMIT 0"); err != nil {
		return err
	}
	defer func() {
		_, undone := t.w.db.pool.Exec(context.WithoutCancel(ctx), "ALTER ROLE victim CONNECTION LIMIT -1")
		err = errors.Join(err, undone)
		t.over = time.Now()
	}()
	_, err = t.w.db.pool.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE usename = 'victim' AND (application_name LIKE '% serve' OR application_name LIKE '% execute' OR application_name LIKE '% log')`)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, t.w.db.URLOf("victim", t.w.db.Address()))
	var refused *pgconn.PgError
	if err == nil {
		return errors.Join(errors.New("the victim may connect"), conn.Close(ctx))
	}
	if !errors.As(err, &refused) || refused.Code != "53300" {
		return err
	}
	return rig.Pause(ctx, 2*t.w.ttl)
}

// hurtNotes drops, doubles or delays what is notified; reordered comes with that.
func hurtNotes(t *trial) func() (int, time.Duration) {
	kind := t.rng.IntN(4)
	hurt := new(atomic.Int64)
	t.notified = hurt
	return func() (int, time.Duration) {
		hurt.Add(1)
		switch kind {
		case 0:
			return 0, 0
		case 1:
			return 2, 0
		case 2:
			return 1, 5 * time.Second
		default:
			return rand.IntN(3), time.Duration(rand.IntN(1000)) * time.Millisecond
		}
	}
}

// listenBadly watches that notifications were hurt.
func listenBadly(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	if err := rig.Pause(ctx, t.w.ttl); err != nil {
		return err
	}
	if t.notified.Load() < 3 {
		return errMissed
	}
	return nil
}

// freezeTheHeir kills the victim and finds that a process which took a run of its
// over stopped itself before the first event, so that a third takes it over.
func freezeTheHeir(ctx context.Context, t *trial) error {
	if err := t.kill(ctx, t.victim); err != nil {
		return err
	}
	heir := t.fleet.all[1]
	for late := time.Now().Add(2 * t.w.bound()); ; {
		still, err := stopped(heir.cmd.Process.Pid)
		if err != nil {
			return err
		}
		if still {
			break
		}
		if time.Now().After(late) {
			return errMissed
		}
		if err := rig.Pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	heir.stopped = time.Now()
	lost := len(t.losses)
	if err := t.noteLosses(ctx, heir, heir.stopped); err != nil {
		return err
	}
	again := 0
	for _, l := range t.losses {
		if l.epoch > 1 {
			again++
		}
	}
	if err := rig.Pause(ctx, 2*t.w.ttl); err != nil {
		return err
	}
	t.woken = time.Now()
	if err := heir.signal(syscall.SIGCONT); err != nil {
		return err
	}
	if again == 0 || lost == 0 {
		return errMissed
	}
	return nil
}

// feedPoison keeps two processes alive until the poisoned run has ended.
func feedPoison(ctx context.Context, t *trial) error {
	for late := time.Now().Add(20 * t.w.bound()); ; {
		var ended bool
		err := t.w.db.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM run_heads JOIN runs USING (run_key)
			WHERE run_id = $1 AND run_heads.status IN ('completed', 'failed', 'canceled'))`, t.runs[0].runID).Scan(&ended)
		switch {
		case err != nil:
			return err
		case ended:
			t.over = time.Now()
			t.fleet.mu.Lock()
			defer t.fleet.mu.Unlock()
			if t.fleet.poisoned == 0 {
				return errMissed
			}
			return nil
		case time.Now().After(late):
			return nil // the audit says what is wrong
		}
		if len(t.fleet.living()) < 2 {
			if err := t.add(ctx); err != nil {
				return err
			}
			continue
		}
		if err := rig.Pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// byClients leaves the harm to the clients.
func byClients(ctx context.Context, t *trial) error { return t.holds(ctx, t.victim) }

// mix does three things, one after another.
func mix(ctx context.Context, t *trial) error {
	harms := []func(context.Context, *trial) error{cut, silent, oneWay, cutInside, answersLost, throttle, terminateAny, terminateListeners, killBackend, killPostgres, stopAndContinue, restartEach}
	for _, n := range t.rng.Perm(len(harms))[:3] {
		if !t.victim.alive() { // and has a successor, who is hurt from now on
			for _, p := range t.fleet.living() {
				t.victim = p
			}
		}
		if err := harms[n](ctx, t); err != nil && !errors.Is(err, errMissed) {
			return err
		}
	}
	t.over = time.Now()
	return nil
}
