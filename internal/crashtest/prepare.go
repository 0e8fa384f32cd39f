package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// of is the world with a fault's own TTL.
func (w *world) of(f fault) *world {
	own := *w
	own.ttl = max(w.ttl, f.ttl)
	return &own
}

// size is how many runs a trial has.
func (f fault) size() int {
	if f.runs > 0 {
		return f.runs
	}
	return runsPerTrial
}

// prepare readies the database before any process runs.
func (t *trial) prepare(ctx context.Context) error {
	if t.fault.notes != nil {
		t.w.db.tamper(t.fault.notes(t))
	}
	if t.fault.rigs == nil {
		return nil
	}
	t.rig = t.fault.rigs[t.rng.IntN(len(t.fault.rigs))]
	if _, err := t.w.db.pool.Exec(ctx, t.rig.create); err != nil {
		return fmt.Errorf("rig the database: %w", err)
	}
	return nil
}

// clean ends the processes and undoes what prepare did.
func (t *trial) clean() error {
	t.fleet.end()
	t.w.db.tamper(nil)
	if t.rig == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	_, err := t.w.db.pool.Exec(ctx, t.rig.drop)
	return errors.Join(err, t.w.db.disarm(ctx))
}

func (d *database) arm(ctx context.Context, what string) error {
	_, err := d.pool.Exec(ctx, "INSERT INTO crashtest.armed VALUES ($1)", what)
	return err
}

func (d *database) disarm(ctx context.Context) error {
	_, err := d.pool.Exec(ctx, "DELETE FROM crashtest.armed")
	return err
}

// raised is how often a function of the rigging has done its harm.
func (d *database) raised(ctx context.Context) (n int64, err error) {
	err = d.pool.QueryRow(ctx, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM crashtest.raised").Scan(&n)
	return n, err
}

var gap = regexp.MustCompile(`stood still (\d+) ms until (\d+)`)

// stoodStill is the longest that a process got no processor although nobody
// stopped it. Of a process that was hurt only what ended before counts.
func (t *trial) stoodStill() (worst time.Duration) {
	t.fleet.mu.Lock()
	defer t.fleet.mu.Unlock()
	for _, p := range t.fleet.all {
		for _, found := range gap.FindAllStringSubmatch(p.said.String(), -1) {
			ms, err := strconv.ParseInt(found[1], 10, 64)
			until, err2 := strconv.ParseInt(found[2], 10, 64)
			if err != nil || err2 != nil {
				continue // half a line, of a process that was killed
			}
			if p.stopped.IsZero() || time.UnixMilli(until).Before(p.stopped) {
				worst = max(worst, time.Duration(ms)*time.Millisecond)
			}
		}
	}
	return worst
}

// complaints are the last warnings and errors of each process.
func (f *fleet) complaints() (all []string) {
	const most = 20
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.all {
		var lines []string
		for line := range strings.Lines(p.said.String()) {
			if strings.Contains(line, `"level":"WARN"`) || strings.Contains(line, `"level":"ERROR"`) || gap.MatchString(line) {
				lines = append(lines, "  "+p.Name+": "+strings.TrimSpace(line))
			}
		}
		all = append(all, lines[max(0, len(lines)-most):]...)
	}
	return all
}

// killCaller kills the process that asks the provider by a path.
func (f *fleet) killCaller(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.all {
		if p.asks == path {
			_ = p.signal(syscall.SIGKILL) // it may have ended meanwhile
			f.poisoned++
		}
	}
}
