package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
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
	// runs of a trial and processes beside the victim; 0 is as usual.
	runs, others int
	// ttl is the shortest that the fault makes sense with.
	ttl time.Duration
	// want is how many runs the long form lets it meet.
	want int
	// rigs are what is done to the database before, one of them.
	rigs []*rigged
	// notes is what befalls notifications.
	notes func(*trial) func() (copies int, late time.Duration)
	// otherEnv is the environment of the first process beside the victim.
	otherEnv func(*rand.Rand) []string
	// What clients do: cancel at a random moment, send all frames by many
	// senders, send one frame that kills, read streams rudely.
	canceled, senders, poison, rude bool
	// tools are what the answers to frames call, none for none. unanswered holds
	// back what clients bring to calls, and what people decide, until the strike
	// lets them go on.
	tools      []string
	unanswered bool
	// proof says after the end whether the fault met somebody.
	proof func(context.Context, *trial) (bool, error)
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
			name: p.name, want: 50, viaVictim: p.viaVictim, hoard: true, idle: p.viaVictim || p.name == "run.finished", takeovers: timed, strike: waitForCrash,
			env: passing("RUNTIME_CRASH_AT", p.name, 1, p.passings),
		})
	}
	return append(append(all, atProcesses()...), atTools()...)
}

func passing(env, point string, from, to int) func(*rand.Rand) []string {
	return func(rng *rand.Rand) []string {
		return []string{fmt.Sprintf("%s=%s:%d", env, point, from+rng.IntN(to-from+1))}
	}
}

// atProcesses are the faults of processes and their clocks, and then the others.
func atProcesses() []fault {
	return append([]fault{
		{name: "kill -9", want: 200, takeovers: timed, strike: kill},
		{name: "all killed at once, 150 runs", want: 500, runs: 150, others: 1, takeovers: timed, strike: killEverybody},
		{name: "nobody for 10 TTL, 40 runs", want: 40, runs: 40, others: 1, takeovers: loose, strike: nobodyForLong},
		{name: "out of memory", want: 12, hoard: true, takeovers: timed, strike: eatMemory,
			env: passing("RUNTIME_CRASH_EAT_AT", "delta.committed", 1, 30)},
		{name: "one that takes over freezes", want: 30, hoard: true, others: 3, takeovers: timed, strike: freezeTheHeir,
			otherEnv: passing("RUNTIME_CRASH_STOP_AT", "lease.acquired", 1, 2)},
		{name: "a frame that kills who executes it", want: 12, others: 1, poison: true, takeovers: loose, strike: feedPoison},
		{name: "SIGSTOP 2 TTL, SIGCONT", want: 50, takeovers: timed, strike: stopAndContinue},
		{name: "SIGSTOP inside a commit, 5 TTL", want: 50, hoard: true, viaVictim: true, takeovers: timed, strike: stopInsideCommit,
			env: passing("RUNTIME_CRASH_STOP_AT", "commit.locked", 4, 9)},
		{name: "SIGSTOP while Postgres commits, 5 TTL", want: 50, hoard: true, takeovers: timed, strike: stopWhileCommitting, rigs: []*rigged{holdAtCommit, holdInside}},
		{name: "SIGSTOP after the trust check, 2 TTL", want: 20, hoard: true, takeovers: timed, strike: stopAtPoint,
			env: passing("RUNTIME_CRASH_STOP_AT", "commit.trusted", 2, 41)},
		{name: "SIGSTOP before the model is called, 2 TTL", want: 20, hoard: true, takeovers: timed, strike: stopAtPoint,
			env: passing("RUNTIME_CRASH_STOP_AT", "step.started", 1, 3)},
		{name: "a tenth of the processor for 3 TTL", want: 12, takeovers: loose, strike: throttle},
		{name: "SIGTERM", want: 20, takeovers: never, strike: terminate},
		{name: "SIGTERM, 40 runs", want: 200, runs: 40, takeovers: never, strike: terminate},
		{name: "rolling restart of 3, 40 runs", want: 200, runs: 40, others: 2, takeovers: never, strike: restartEach},
		{name: "clock of one process wrong, kill -9 of another", want: 12, spread: true, takeovers: timed, strike: killOther, env: wrongClock},
		{name: "clock of one process wrong", want: 12, spread: true, takeovers: never, strike: watch, env: wrongClock},
		{name: "cancels at any moment", want: 200, runs: 20, canceled: true, takeovers: never, strike: byClients},
		{name: "cancels at any moment, kill -9", want: 200, runs: 20, canceled: true, takeovers: timed, strike: kill},
		{name: "frames by 8 senders, kill -9", want: 200, senders: true, takeovers: timed, strike: kill},
		{name: "streams read slowly and left", want: 50, rude: true, takeovers: never, strike: byClients},
	}, atDatabase()...)
}

// atDatabase are the faults of the database, of the ways to it, and mixed ones.
func atDatabase() []fault {
	return []fault{
		{name: "connections to Postgres cut for 2 TTL", want: 20, takeovers: timed, strike: cut},
		{name: "connections to Postgres silent for 2 TTL", want: 12, takeovers: timed, strike: silent},
		{name: "one way to Postgres silent for 2 TTL", want: 12, takeovers: loose, strike: oneWay},
		{name: "connections to Postgres cut in mid-batch", want: 30, takeovers: loose, strike: cutInside},
		{name: "connections to Postgres silent in mid-batch, 5 TTL", want: 12, ttl: 3 * time.Second, hoard: true, takeovers: timed, strike: silentInside},
		{name: "answers of Postgres lost for 300 ms", want: 50, takeovers: loose, strike: answersLost},
		{name: "answer to a COMMIT lost", want: 50, hoard: true, takeovers: loose, strike: loseTheAnswer, rigs: []*rigged{holdAtCommit}},
		{name: "Postgres 100 ms away, give or take 100 ms", want: 12, ttl: 5 * time.Second, takeovers: never, strike: slowLines},
		{name: "Postgres kill -9, restart", want: 20, takeovers: loose, strike: killPostgres},
		{name: "one backend kill -9", want: 20, takeovers: loose, strike: killBackend},
		{name: "random sessions ended, 10/s", want: 20, takeovers: loose, strike: terminateAny},
		{name: "listening sessions ended, 10/s", want: 20, takeovers: never, strike: terminateListeners},
		{name: "session of the log ended in mid-batch", want: 30, hoard: true, takeovers: loose, strike: endTheLogsSession, rigs: []*rigged{holdAtCommit, holdInside}},
		{name: "statements refused at random", want: 100, takeovers: loose, strike: failAtRandom, rigs: []*rigged{failures}},
		{name: "connections refused for 2 TTL", want: 12, takeovers: loose, strike: refuseConnections},
		{name: "commits 500 ms slower for 2 TTL", want: 12, ttl: 5 * time.Second, takeovers: never, strike: commitSlowly, rigs: []*rigged{slowCommits}},
		{name: "notifications lost, doubled, late", want: 20, others: 2, takeovers: never, strike: listenBadly, notes: hurtNotes},
		{name: "disk of Postgres full for 1.5 s", want: 12, small: true, takeovers: loose, strike: fillDisk},
		{name: "three at random, one after another", want: 50, others: 2, takeovers: loose, strike: mix},
	}
}
