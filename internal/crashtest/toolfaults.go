package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// allTools are the tools that a caller of a run may see called at once.
var allTools = []string{fetches, comments, mails, asks}

// toolPoints are the gaps around a tool call that a process can die in, with how
// often it passes before it may die, at most.
var toolPoints = []struct {
	name     string
	passings int
	tools    []string
}{
	{"tool.requested", 4, allTools},
	{"approval.requested", 4, []string{mails, fetches}},
	{"tool.started", 12, allTools},
	{"tool.returned", 8, []string{fetches, comments, mails}},
	{"tool.finished", 12, allTools},
}

// atTools are the faults around tool calls.
func atTools() []fault {
	var all []fault
	for _, p := range toolPoints {
		all = append(all, fault{
			name: p.name, want: 50, hoard: true, takeovers: timed, strike: waitForCrash, tools: p.tools,
			env: passing("RUNTIME_CRASH_AT", p.name, 1, p.passings),
		})
	}
	work := []string{fetches, comments, mails}
	return append(all,
		fault{name: "kill -9 with tools at work", want: 50, hoard: true, takeovers: timed, tools: allTools, strike: atWork(killWorker)},
		fault{name: "SIGSTOP 2 TTL with tools at work", want: 50, hoard: true, takeovers: timed, tools: allTools, strike: atWork(stopWorker)},
		fault{name: "SIGTERM with tools at work", want: 20, takeovers: never, tools: allTools, strike: atWork(terminateWorker)},
		fault{name: "connections to Postgres cut for 2 TTL with tools at work", want: 20, hoard: true, takeovers: timed, tools: work, strike: atWork(cutWorker)},
		fault{name: "Postgres kill -9, restart, with tools at work", want: 20, hoard: true, takeovers: loose, tools: work, strike: atWork(killPostgresNow)},
		fault{name: "statements refused at random, with tools at work", want: 50, takeovers: loose, tools: allTools, strike: failAtRandom, rigs: []*rigged{failures}},
		fault{name: "several killed while runs wait for clients' tools", want: 50, others: 2, takeovers: never, tools: []string{asks}, unanswered: true, strike: killWhileWaiting},
		fault{name: "several killed while runs wait for people", want: 50, others: 2, takeovers: never, tools: []string{mails}, unanswered: true, strike: killWhileWaiting},
		fault{name: "cancels with tools at work", want: 100, runs: 20, canceled: true, takeovers: never, tools: allTools, strike: byClients, proof: canceledAtWork},
		fault{name: "cancels with tools at work, kill -9", want: 100, runs: 20, canceled: true, takeovers: timed, tools: allTools, strike: kill, proof: canceledAtWork},
	)
}

// working counts the calls that are carried out under a process's leases.
func (t *trial) working(ctx context.Context, p *process) (n int, err error) {
	err = t.w.db.pool.QueryRow(ctx, `SELECT count(*) FROM tool_tasks JOIN run_leases USING (run_key)
		WHERE lease_owner = $1 AND NOT released AND lease_expires_at > clock_timestamp()
		  AND kind <> 'client' AND state IN ('running', 'streaming_output')`, p.owner).Scan(&n)
	return n, err
}

// atWork waits until the victim carries a tool call out, then strikes.
func atWork(strike func(context.Context, *trial) error) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		for late := time.Now().Add(10 * time.Second); ; {
			n, err := t.working(ctx, t.victim)
			switch {
			case err != nil:
				return err
			case n > 0:
				return strike(ctx, t)
			case time.Now().After(late):
				return errMissed
			}
			if err := rig.Pause(ctx, 5*time.Millisecond); err != nil {
				return err
			}
		}
	}
}

// hurtWorker does harm to the victim, and sees in the database that calls were at
// work then: nobody ends them so soon.
func (t *trial) hurtWorker(ctx context.Context, harm func() error) error {
	if err := harm(); err != nil {
		return err
	}
	if err := t.noteLosses(ctx, t.victim, time.Now()); err != nil {
		return err
	}
	n, err := t.working(ctx, t.victim)
	if err == nil && n == 0 {
		err = errMissed
	}
	return err
}

func killWorker(ctx context.Context, t *trial) error {
	err := t.hurtWorker(ctx, func() error {
		err := t.victim.signal(syscall.SIGKILL)
		<-t.victim.done
		return err
	})
	if err != nil {
		return err
	}
	return t.replace(ctx)
}

func stopWorker(ctx context.Context, t *trial) error {
	if err := t.hurtWorker(ctx, func() error { return t.victim.signal(syscall.SIGSTOP) }); err != nil {
		return wakeAnyway(t, err)
	}
	if err := pause(ctx, 2*t.w.ttl+time.Duration(t.rng.IntN(1000))*time.Millisecond); err != nil {
		return err
	}
	return t.wake()
}

// wakeAnyway continues a victim that was stopped for nothing.
func wakeAnyway(t *trial, why error) error {
	if err := t.wake(); err != nil {
		return err
	}
	return why
}

func terminateWorker(ctx context.Context, t *trial) error {
	if err := t.drained(t.victim); err != nil {
		return err
	}
	return t.replace(ctx)
}

func cutWorker(ctx context.Context, t *trial) error {
	err := t.hurtWorker(ctx, func() error { t.victim.line.cut(); return nil })
	if err == nil {
		err = pause(ctx, 2*t.w.ttl+time.Duration(t.rng.IntN(1000))*time.Millisecond)
	}
	if mended := t.victim.line.mend(); mended != nil {
		return mended
	}
	return err
}

// killWhileWaiting kills all processes but one when every run waits for its
// caller and nobody holds it, starts another, and lets the callers go on.
func killWhileWaiting(ctx context.Context, t *trial) error {
	defer close(t.answers)
	epochs, err := t.allWait(ctx)
	if err != nil {
		return err
	}
	living := t.fleet.living()
	for _, p := range living[:len(living)-1] {
		if err := p.signal(syscall.SIGKILL); err != nil {
			return err
		}
		<-p.done
	}
	if err := t.add(ctx); err != nil {
		return err
	}
	// Longer than any lease, if there were one.
	if err := pause(ctx, t.w.ttl+t.w.ttl/2); err != nil {
		return err
	}
	after, err := t.allWait(ctx)
	if err == nil && after != epochs {
		err = fmt.Errorf("runs that wait were taken by processes: their epochs add up to %d and then to %d", epochs, after)
	}
	return err
}

// allWait waits until each run of the trial waits for its caller without a
// lease, and gives the sum of their epochs.
func (t *trial) allWait(ctx context.Context) (epochs int64, err error) {
	var ids []string
	for _, c := range t.runs {
		ids = append(ids, c.runID)
	}
	for late := time.Now().Add(10 * time.Second); ; {
		var n int
		err := t.w.db.pool.QueryRow(ctx, `SELECT count(*), coalesce(sum(l.lease_epoch), 0) FROM runs JOIN run_heads h USING (run_key) JOIN run_leases l USING (run_key)
			WHERE runs.run_id = ANY($1) AND h.status = 'waiting' AND NOT runnable AND l.released`, ids).Scan(&n, &epochs)
		switch {
		case err != nil:
			return 0, err
		case n == len(ids) && t.sent.Load() == int64(n):
			return epochs, nil
		case time.Now().After(late):
			return 0, errMissed
		}
		if err := rig.Pause(ctx, 5*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// canceledAtWork says whether a call was canceled that had begun.
func canceledAtWork(ctx context.Context, t *trial) (bool, error) {
	var ids []string
	for _, c := range t.runs {
		ids = append(ids, c.runID)
	}
	var n int
	err := t.w.db.pool.QueryRow(ctx, `SELECT count(*) FROM tool_tasks
		WHERE run_id = ANY($1) AND kind <> 'client' AND state = 'canceled' AND running_at IS NOT NULL`, ids).Scan(&n)
	return n > 0, err
}
