package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"syscall"
	"time"
)

// wrongClock is off by up to two hours, in either direction.
func wrongClock(rng *rand.Rand) []string {
	d := time.Duration(2+rng.IntN(118)) * time.Minute
	if rng.IntN(2) == 0 {
		d = -d
	}
	return []string{"RUNTIME_CRASH_CLOCK_OFFSET=" + d.String()}
}

// holds waits until a process holds a run, and then for a moment more.
func (t *trial) holds(ctx context.Context, p *process) error {
	if t.fault.runs > runsPerTrial && !t.fault.canceled {
		if err := t.busy(ctx, t.fault.runs*5/6); err != nil {
			return err
		}
	}
	late := time.Now().Add(10 * time.Second)
	for {
		var n int
		err := t.w.db.pool.QueryRow(ctx, `SELECT count(*) FROM run_leases
			WHERE lease_owner = $1 AND NOT released AND lease_expires_at > clock_timestamp()`, p.owner).Scan(&n)
		switch {
		case err != nil:
			return err
		case n > 0:
			return pause(ctx, t.moment())
		case time.Now().After(late):
			return errMissed
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// moment is a random one, short when many runs are at work at once.
func (t *trial) moment() time.Duration {
	if t.fault.runs > runsPerTrial {
		return time.Duration(t.rng.IntN(20)) * time.Millisecond
	}
	return time.Duration(t.rng.IntN(700)) * time.Millisecond
}

// noteLosses writes down the leases of a process that has just been hurt. A
// renewal that was on its way is let arrive first; nobody can take over so soon.
func (t *trial) noteLosses(ctx context.Context, p *process, at time.Time) error {
	if err := pause(ctx, 30*time.Millisecond); err != nil {
		return err
	}
	rows, err := t.w.db.pool.Query(ctx, `SELECT run_id, lease_epoch, lease_expires_at FROM run_leases JOIN runs USING (run_key)
		WHERE lease_owner = $1 AND NOT released AND lease_expires_at > clock_timestamp()`, p.owner)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		l := loss{at: at}
		if err := rows.Scan(&id, &l.epoch, &l.expires); err != nil {
			return err
		}
		t.losses[id] = l
	}
	return rows.Err()
}

func waitForCrash(ctx context.Context, t *trial) error {
	select {
	case <-t.victim.done:
	case <-time.After(8 * time.Second):
		return errMissed
	case <-ctx.Done():
		return ctx.Err()
	}
	status, ok := t.victim.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		return fmt.Errorf("the victim ended by itself (%s):\n%s", t.victim.cmd.ProcessState, t.victim.said)
	}
	if err := t.noteLosses(ctx, t.victim, t.victim.Ended); err != nil {
		return err
	}
	return t.replace(ctx)
}

func kill(ctx context.Context, t *trial) error { return t.kill(ctx, t.victim) }

// killOther kills a process whose clock is right while one with a wrong clock
// lives, and starts another, because clients need one that takes their tokens.
func killOther(ctx context.Context, t *trial) error {
	if err := t.requireWrongClock(ctx); err != nil {
		return err
	}
	if err := t.add(ctx); err != nil {
		return err
	}
	return t.kill(ctx, t.other)
}

// requireWrongClock shows that the wrong clock is in force: the victim refuses
// tokens that the others take.
func (t *trial) requireWrongClock(ctx context.Context) error {
	a, err := ask(ctx, http.MethodGet, t.victim.api, "/health", "", nil)
	if err == nil && a.status != http.StatusUnauthorized {
		err = fmt.Errorf("a process with a wrong clock takes a token: %d %s", a.status, a.body)
	}
	return err
}

func (t *trial) kill(ctx context.Context, p *process) error {
	if err := t.holds(ctx, p); err != nil {
		return err
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	if err := t.noteLosses(ctx, p, p.Ended); err != nil {
		return err
	}
	return t.replace(ctx)
}

func stopAndContinue(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	if err := t.victim.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if err := t.noteLosses(ctx, t.victim, time.Now()); err != nil {
		return err
	}
	if err := pause(ctx, 2*t.w.ttl+time.Duration(t.rng.IntN(1000))*time.Millisecond); err != nil {
		return err
	}
	return t.wake()
}

// wake continues a stopped victim.
func (t *trial) wake() error {
	t.woken = time.Now()
	return t.victim.signal(syscall.SIGCONT)
}

// stopInsideCommit lets the victim stop itself between the two round trips of a
// commit, which the database must show: a transaction of the victim's that is
// idle and has heads locked.
func stopInsideCommit(ctx context.Context, t *trial) error {
	if err := t.stops(ctx); err != nil {
		return err
	}
	at := time.Now()
	var open bool
	err := t.w.db.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity a JOIN pg_locks l USING (pid)
		WHERE a.usename = 'victim' AND a.state = 'idle in transaction' AND l.granted AND l.relation = 'runtime.run_heads'::regclass)`).Scan(&open)
	if err == nil && !open {
		err = errors.New("the victim stopped inside a commit and has no head locked")
	}
	if err != nil {
		return err
	}
	if err := t.noteLosses(ctx, t.victim, at); err != nil {
		return err
	}
	if err := pause(ctx, 5*t.w.ttl); err != nil {
		return err
	}
	return t.wake()
}

// stops waits until the victim has stopped itself.
func (t *trial) stops(ctx context.Context) error {
	for late := time.Now().Add(8 * time.Second); ; {
		still, err := stopped(t.victim.cmd.Process.Pid)
		switch {
		case err != nil:
			return err
		case still:
			t.victim.stopped = time.Now()
			return nil
		case time.Now().After(late):
			return errMissed
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// stopAtPoint lets the victim stop itself at a point. After the last look at its
// own lease only the fence stands in its way when it goes on; before the call of
// the model only another look.
func stopAtPoint(ctx context.Context, t *trial) error {
	if err := t.stops(ctx); err != nil {
		return err
	}
	if err := t.noteLosses(ctx, t.victim, time.Now()); err != nil {
		return err
	}
	if err := pause(ctx, 2*t.w.ttl+time.Duration(t.rng.IntN(1000))*time.Millisecond); err != nil {
		return err
	}
	return t.wake()
}

func terminate(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	if err := t.drained(t.victim); err != nil {
		return err
	}
	return t.replace(ctx)
}

// drained asks a process to end, and waits until it has.
func (t *trial) drained(p *process) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(25 * time.Second):
		return fmt.Errorf("%s does not end:\n%s", p.Name, p.said)
	}
}

func watch(ctx context.Context, t *trial) error {
	if err := t.requireWrongClock(ctx); err != nil {
		return err
	}
	return t.holds(ctx, t.victim)
}

func cut(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	at := time.Now()
	t.victim.line.cut()
	if err := t.noteLosses(ctx, t.victim, at); err != nil {
		return err
	}
	if err := pause(ctx, 2*t.w.ttl+time.Duration(t.rng.IntN(1000))*time.Millisecond); err != nil {
		return err
	}
	return t.victim.line.mend()
}

func silent(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	at := time.Now()
	if err := t.victim.line.silence(); err != nil {
		return err
	}
	if err := t.noteLosses(ctx, t.victim, at); err != nil {
		return err
	}
	if err := pause(ctx, 2*t.w.ttl+time.Duration(t.rng.IntN(1000))*time.Millisecond); err != nil {
		return err
	}
	t.victim.line.clear(ctx)
	return nil
}

// answersLost lets statements and commits arrive and loses what the database
// answers; then the connections end.
func answersLost(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	if err := t.victim.line.deafen("downstream"); err != nil {
		return err
	}
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	t.victim.line.clear(ctx)
	t.over = time.Now()
	return nil
}

func killPostgres(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	return killPostgresNow(ctx, t)
}

func killPostgresNow(ctx context.Context, t *trial) error {
	if err := t.w.db.Kill(); err != nil {
		return err
	}
	if err := pause(ctx, time.Duration(t.rng.IntN(1500))*time.Millisecond); err != nil {
		return err
	}
	if err := t.w.db.Start(ctx); err != nil {
		return err
	}
	t.over = time.Now()
	return nil
}

// fillDisk leaves the database not a byte, for its tables or its log, and gives
// the room back later. The server may end meanwhile.
func fillDisk(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	if err := t.w.db.fill(ctx); err != nil {
		return err
	}
	if err := pause(ctx, 1500*time.Millisecond); err != nil {
		return err
	}
	if err := t.w.db.drain(ctx); err != nil {
		return err
	}
	t.over = time.Now()
	return nil
}
