package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
)

// errMissed says that a fault met nobody: the trial proves nothing about it.
var errMissed = errors.New("the fault met nobody")

// takeovers says what a fault makes of the leases of the process it hurts.
type takeovers int

const (
	// timed: each of them is taken over, not before its end and within the bound.
	timed takeovers = iota
	// loose: a holder may give its lease back early, or keep it; who takes over
	// does so within the bound after the fault is over.
	loose
	// never: nobody is lost, so nothing is taken over.
	never
)

// fault is one thing that goes wrong.
type fault struct {
	name string
	// env is the victim's environment.
	env func(*rand.Rand) []string
	// viaVictim makes clients ask the victim first.
	viaVictim bool
	// hoard gives the victim nearly every run, spread gives it some; else chance
	// decides.
	hoard, spread bool
	takeovers     takeovers
	// idle may hurt a victim that holds nothing.
	idle bool
	// small wants the database whose disk can be filled.
	small bool
	// strike waits for its moment, does harm, and returns when the harm is over.
	strike func(context.Context, *trial) error
}

// points are the gaps between two commits that a process can die in. The
// number is how often it passes before it may die, at most.
var points = []struct {
	name      string
	passings  int
	viaVictim bool // passed while the API is asked, not by the executor
}{
	{"run.started_row", 3, true},
	{"frame.appended", 6, true},
	{"lease.acquired", 3, false},
	{"step.started", 3, false},
	{"predict.called", 30, false},
	{"delta.committed", 30, false},
	{"predict.returned", 3, false},
	{"frame.finished", 3, false},
	{"run.finished", 2, false},
}

func allFaults() []fault {
	var all []fault
	for _, p := range points {
		all = append(all, fault{
			name: p.name, viaVictim: p.viaVictim, hoard: true, idle: p.viaVictim || p.name == "run.finished", takeovers: timed, strike: waitForCrash,
			env: func(rng *rand.Rand) []string {
				return []string{fmt.Sprintf("RUNTIME_CRASH_AT=%s:%d", p.name, 1+rng.IntN(p.passings))}
			},
		})
	}
	return append(all,
		fault{name: "kill -9", takeovers: timed, strike: kill},
		fault{name: "SIGSTOP 2 TTL, SIGCONT", takeovers: timed, strike: stopAndContinue},
		fault{name: "SIGSTOP inside a commit, 5 TTL", hoard: true, takeovers: timed, strike: stopInsideCommit},
		fault{name: "SIGSTOP after the trust check, 2 TTL", hoard: true, takeovers: timed, strike: stopAtPoint, env: func(rng *rand.Rand) []string {
			return []string{fmt.Sprintf("RUNTIME_CRASH_STOP_AT=commit.trusted:%d", 2+rng.IntN(40))}
		}},
		fault{name: "SIGSTOP before the model is called, 2 TTL", hoard: true, takeovers: timed, strike: stopAtPoint, env: func(rng *rand.Rand) []string {
			return []string{fmt.Sprintf("RUNTIME_CRASH_STOP_AT=step.started:%d", 1+rng.IntN(3))}
		}},
		fault{name: "SIGTERM", takeovers: never, strike: terminate},
		fault{name: "clock of one process wrong, kill -9 of another", spread: true, takeovers: timed, strike: killOther, env: wrongClock},
		fault{name: "clock of one process wrong", spread: true, takeovers: never, strike: watch, env: wrongClock},
		fault{name: "connections to Postgres cut for 2 TTL", takeovers: timed, strike: cut},
		fault{name: "connections to Postgres silent for 2 TTL", takeovers: timed, strike: silent},
		fault{name: "answers of Postgres lost for 300 ms", takeovers: loose, strike: answersLost},
		fault{name: "Postgres kill -9, restart", takeovers: loose, strike: killPostgres},
		fault{name: "disk of Postgres full for 1.5 s", small: true, takeovers: loose, strike: fillDisk},
	)
}
