package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// holding is a commit of the victim's that waits inside Postgres, with its locks.
type holding struct {
	conn *pgxpool.Conn // has what it waits for
	pid  int           // its backend
	xid  string
}

// hold lets the victim's next commits wait, and returns when one does that the
// database shows to have written and locked a head.
func (t *trial) hold(ctx context.Context) (*holding, error) {
	conn, err := t.w.db.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	h := &holding{conn: conn}
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(47)"); err != nil {
		return nil, errors.Join(err, h.release(ctx))
	}
	for late := time.Now().Add(3 * time.Second); ; {
		err := t.w.db.pool.QueryRow(ctx, `SELECT coalesce(max(a.pid), 0), coalesce(max(a.backend_xid::text), '')
			FROM pg_stat_activity a JOIN pg_locks w USING (pid)
			WHERE a.usename = 'victim' AND a.application_name LIKE '% log' AND a.backend_xid IS NOT NULL
			  AND w.locktype = 'advisory' AND NOT w.granted
			  AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.granted AND l.relation = 'runtime.run_heads'::regclass)`).
			Scan(&h.pid, &h.xid)
		switch {
		case err != nil:
			return nil, errors.Join(err, h.release(ctx))
		case h.pid != 0:
			return h, nil
		case time.Now().After(late):
			return nil, errors.Join(errMissed, h.release(ctx))
		}
		if err := rig.Pause(ctx, 5*time.Millisecond); err != nil {
			return nil, errors.Join(err, h.release(ctx))
		}
	}
}

func (h *holding) release(ctx context.Context) error {
	defer h.conn.Release()
	_, err := h.conn.Exec(ctx, "SELECT pg_advisory_unlock_all()")
	return err
}

// stopWhileCommitting stops the victim while Postgres commits for it, which takes
// 5 TTL, or until somebody who takes the run over ends the session.
func stopWhileCommitting(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	h, err := t.hold(ctx)
	if err != nil {
		return err
	}
	if err := t.victim.signal(syscall.SIGSTOP); err != nil {
		return errors.Join(err, h.release(ctx))
	}
	if err = t.noteLosses(ctx, t.victim, time.Now()); err == nil {
		err = rig.Pause(ctx, 5*t.w.ttl)
	}
	if err = errors.Join(err, h.release(ctx)); err != nil {
		return err
	}
	if err := rig.Pause(ctx, t.w.ttl/2+time.Duration(t.rng.IntN(1000))*time.Millisecond); err != nil {
		return err
	}
	return t.wake()
}

// endTheLogsSession ends the session that a commit is in the middle of, a few
// times.
func endTheLogsSession(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	met := 0
	for range 3 {
		h, err := t.hold(ctx)
		if errors.Is(err, errMissed) && met > 0 {
			break
		}
		if err != nil {
			return err
		}
		met++
		_, err = t.w.db.pool.Exec(ctx, "SELECT pg_terminate_backend($1, 2000)", h.pid)
		if err = errors.Join(err, h.release(ctx)); err != nil {
			return err
		}
	}
	t.over = time.Now()
	return nil
}

// loseTheAnswer cuts the line when COMMIT has arrived and before its answer has,
// and sees that it was committed.
func loseTheAnswer(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	h, err := t.hold(ctx)
	if err != nil {
		return err
	}
	t.victim.line.cut()
	if err := h.release(ctx); err != nil {
		return err
	}
	for late := time.Now().Add(5 * time.Second); ; {
		var how string
		if err := t.w.db.pool.QueryRow(ctx, "SELECT coalesce(pg_xact_status($1::text::xid8), '')", h.xid).Scan(&how); err != nil {
			return err
		}
		if how == "committed" {
			break
		}
		if how != "in progress" || time.Now().After(late) {
			return fmt.Errorf("the commit whose answer was to be lost is %q", how)
		}
		if err := rig.Pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	err = t.victim.line.mend()
	t.over = time.Now()
	return err
}
