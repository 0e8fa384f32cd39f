package runlog

import (
	"errors"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

var (
	// ErrFenced says that the writer's lease epoch is no longer the run's.
	ErrFenced = errors.New("another executor holds the run")
	// ErrFinished says that the run has its terminal status; nothing is appended.
	ErrFinished = errors.New("the run has finished")
	// ErrNoRun says that there is no such log.
	ErrNoRun = errors.New("no such run")
	// ErrSeq says that the head is not where the caller expected it.
	ErrSeq = errors.New("the log has moved on")
	// ErrUnknown says that the connection broke during the commit: the unit is
	// wholly in the log or not at all, and only the log can tell which.
	ErrUnknown = errors.New("the outcome of the commit is not known")
	// ErrStopped says that the process stops and appends no more.
	ErrStopped = errors.New("the appender has stopped")
	// ErrLocked says that somebody else has the run's head locked and does not
	// finish. The unit is not in the log.
	ErrLocked = errors.New("somebody else is writing to the run")
	// ErrBusy says that more units wait than the appender takes.
	ErrBusy = errors.New("too many appends are waiting")
)

// Head is the last state of a run's log.
type Head struct {
	Seq             int64
	Hash            [32]byte
	Oldest          int64     // the first seq that is kept
	FloorHash       *[32]byte // hash of the event before it, nil while everything is kept
	Epoch           int64     // the lease epoch that may write
	FrameCount      int64     // frames accepted
	FramePosition   int64     // frames finished
	Status          string
	CancelRequested bool
}

// Terminal says whether a status is one that a run ends in.
func Terminal(status string) bool {
	return status == "completed" || status == "failed" || status == "canceled"
}

// Unit is one change of one run.
type Unit struct {
	RunKey uuid.UUID
	RunID  string
	// Epoch fences the unit: it is refused when the run's lease has another. 0
	// is for writers that hold no lease, such as the API.
	Epoch int64
	// ExpectSeq, when set, refuses the unit unless it is the head's seq.
	ExpectSeq *int64
	// Trace is stored on the unit's events.
	Trace telemetry.Trace
	// Decide sees the locked head and answers with the change to make. It may
	// run more than once and must not call out.
	Decide func(h Head) (Change, error)
}

// Change is what a unit writes.
type Change struct {
	Events []event.Event
	// Status, when set, is the run's new status.
	Status string
	// FrameCount and FramePosition are added to the head's.
	FrameCount, FramePosition int64
	CancelRequested           bool
	// Work tells executors everywhere that the run has something to do, as a new
	// frame or a cancel does by itself.
	Work bool
	// Rows are written in the same transaction, after the events.
	Rows []Row
	// Joints are written in the same transaction, last. A change that is nothing
	// but joints is taken from a run that has ended as well: money is settled
	// after the log is closed.
	Joints []Joint
}

// Joint is a part of a change that is written together with those of the other
// units of the commit, after everything else: for rows that many runs share, and
// that are better changed once per commit than once per unit. A statement that
// the database refuses fails only the units at fault, as any other of theirs.
type Joint interface {
	// Join queues the statements of all joints of a commit, of which it is the
	// first. q is as a Row's.
	Join(q *db.Queries, all []Joint) error
}

// Row queues a statement of a unit. q's methods return nothing yet: their
// effects and errors come with the commit. firstSeq is the seq of the unit's
// first event.
type Row func(q *db.Queries, firstSeq int64) error

// Ack says where a unit's events stand.
type Ack struct {
	FirstSeq, LastSeq int64
	// Head is the run's head after the unit.
	Head Head
}

// Append is the Decide of a unit that only appends.
func Append(events ...event.Event) func(Head) (Change, error) {
	return func(Head) (Change, error) { return Change{Events: events}, nil }
}
