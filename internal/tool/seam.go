package tool

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Catalog ...
type Catalog struct{}

func NewCatalog(tools ...Tool) (*Catalog, error)                 { panic("seam") }
func (c *Catalog) Set(source string, tools []Tool) error         { panic("seam") }
func (c *Catalog) For(clientTools json.RawMessage) (View, error) { panic("seam") }

// View ...
type View struct{}

func (v View) Specs() []Spec                                          { panic("seam") }
func (v View) Spec(name string) (Spec, bool)                          { panic("seam") }
func (v View) ModelName(name string) string                           { panic("seam") } // as a model is told it: [A-Za-z0-9_-]{1,64}
func (v View) FromModel(modelName string) (name string, ok bool)      { panic("seam") } // takes a plain name too
func (v View) CheckInput(name string, input json.RawMessage) *Error   { panic("seam") }
func (v View) CheckOutput(name string, output json.RawMessage) *Error { panic("seam") }

// Request asks for a call.
type Request struct {
	Run         db.Run
	ToolCallID  string
	Spec        Spec // for a tool that does not exist: only Name
	Input       json.RawMessage
	RequestedBy string // model or api
	Step        int64  // 0 when no step asked
	Index       int
	FrameID     string
	Trace       telemetry.Trace
}

func ParamsHash(input json.RawMessage) (string, error) { panic("seam") }
func CallID(runID, stepCallID string, index int, name, paramsHash string) (string, error) {
	panic("seam")
}

// Requested: tool.requested, policy.decision, the row (queued), the evaluation's row.
func Requested(q Request, e policy.Evaluation, approvalID string) (runlog.Change, error) {
	panic("seam")
}

// Refused: tool.requested, policy.decision when there is one, tool.finished{failed}, the row with receipt.
func Refused(q Request, e *policy.Evaluation, err *Error) (runlog.Change, error) { panic("seam") }

// Started: the row is running with one attempt more, tool.started.
func Started(t db.ToolTask, provider string, epoch int64) runlog.Change { panic("seam") }

// AfterStart is the row as it is once Started is committed; give this to Progressed and Finished.
func AfterStart(t db.ToolTask, provider string, epoch int64) db.ToolTask { panic("seam") }

func Progressed(t db.ToolTask, output json.RawMessage, epoch int64) runlog.Change { panic("seam") }

// AfterProgress is the row once Progressed is committed. Finished takes the row from before it just as well.
func AfterProgress(t db.ToolTask, epoch int64) db.ToolTask { panic("seam") }

func Finished(t db.ToolTask, o Outcome, epoch int64) (runlog.Change, error) { panic("seam") }
func Late(t db.ToolTask, o Outcome, frameID string) runlog.Change           { panic("seam") }

// CancelRequested: the row's flag and tool.cancel_requested, Work set. The server
// adds run's row that makes the run runnable.
func CancelRequested(t db.ToolTask, actor, reason string) runlog.Change { panic("seam") }

// Moved says whether a commit failed because a task was not in the state (or a
// call with the id was there already) that the unit expected: read it again.
func Moved(err error) bool { panic("seam") }

// Terminal, Open: of a task's state.
func Terminal(state string) bool { panic("seam") }

func OpenTasks(ctx context.Context, q db.DBTX, runKey uuid.UUID) ([]db.ToolTask, error) {
	panic("seam")
}
func ByIDs(ctx context.Context, q db.DBTX, runKey uuid.UUID, ids []string) ([]db.ToolTask, error) {
	panic("seam")
}
func Count(ctx context.Context, q db.DBTX, runKey uuid.UUID) (int64, error) { panic("seam") }

// Get finds a call of an owner's ("" is everybody's) by its id; runKey when the
// caller named the run. fault tool_task_not_found, or invalid_request when the id
// is of several runs.
func Get(ctx context.Context, q db.DBTX, owner, toolCallID string, runKey *uuid.UUID) (db.ToolTask, error) {
	panic("seam")
}

// Page of List.
type Page struct {
	QueuedAt   time.Time
	ToolCallID string
}

func List(ctx context.Context, q db.DBTX, runKey uuid.UUID, after *Page, limit int) (tasks []db.ToolTask, next *Page, err error) {
	panic("seam")
}

// Known finds the call that came before under the id: found with the same tool and
// input, or fault tool_call_conflict.
func Known(ctx context.Context, q db.DBTX, runKey uuid.UUID, toolCallID, name, paramsHash string) (t db.ToolTask, found bool, err error) {
	panic("seam")
}

// StoredInput is the input to run a task with that this process did not see whole;
// *Error class input_redacted when redaction changed it.
func StoredInput(t db.ToolTask) (json.RawMessage, *Error) { panic("seam") }

// CallOf makes the call of a task. t is from AfterStart: Attempt is t.Attempts.
func CallOf(r db.Run, t db.ToolTask, input json.RawMessage) Call { panic("seam") }

// The terminal states and the others.
const (
	Queued          = "queued"
	Running         = "running"
	StreamingOutput = "streaming_output"
	Succeeded       = "succeeded"
	Failed          = "failed"
	Canceled        = "canceled"
	TimedOut        = "timed_out"
)

// Outcome is how a call ended.
type Outcome struct {
	State           string
	Output          json.RawMessage // redacted and bounded
	OutputHash      string          // of the whole; empty when there is no output
	Truncated       bool
	Err             *Error
	CorrelationID   string
	Provider        string
	PrimaryProvider string // when another did it
	FallbackReason  string
	FrameID         string // that brought it: client tools
	Latency         time.Duration
	Attempts        int // that Do made; 0 for ends without one
}

// Ended is the outcome of a task that ends without a result: canceled, timed_out
// or failed with a class (interrupted, canceled, approval_rejected, approval_expired,
// outcome_unknown, input_redacted, ...).
func Ended(t db.ToolTask, state string, err *Error) Outcome { panic("seam") }

// Cause is the cause to cancel Do's context with, so that the outcome says why:
// context.WithCancelCause(ctx), cancel(tool.Cause("interrupted", "...")).
func Cause(class, message string) error { panic("seam") }

// Config of a Runner; zero values are defaults.
type Config struct {
	Global, PerOwner, PerProvider int           // calls at once: 512, 64, 128
	PerRun                        int           // when Acquire is given 0: 8
	Attempts                      int           // at a safe_retry call: 3
	Grace                         time.Duration // for a tool to return after its context ended: 2 s
	MaxOutput                     int           // bytes: 256 KiB
	BreakerFailures               int
	BreakerOpen                   time.Duration
}

type Runner struct{}

func NewRunner(c Config, catalog *Catalog, m *telemetry.Metrics) *Runner { panic("seam") }
func (r *Runner) Acquire(runKey uuid.UUID, owner string, s Spec, perRun int) (release func(), ok bool) {
	panic("seam")
}

// Freed rings (a channel of one, shared) when room appears.
func (r *Runner) Freed() <-chan struct{} { panic("seam") }
func (r *Runner) Do(ctx context.Context, call Call, spec Spec, progress func(json.RawMessage) error) Outcome {
	panic("seam")
}
func (r *Runner) Reconcile(ctx context.Context, call Call, spec Spec) (Outcome, bool) { panic("seam") }

// Delivered is the outcome that a client tool's result says: redacted, bounded,
// checked against its schema (output_invalid fails the call).
func (r *Runner) Delivered(v View, t db.ToolTask, frameID string, output json.RawMessage, errorText string) Outcome {
	panic("seam")
}

// Breakers are the states (closed, half_open, open) by provider, of this process.
func (r *Runner) Breakers() map[string]string { panic("seam") }

// Overdue makes runs runnable whose client tools or approvals are past their deadline.
func Overdue(ctx context.Context, q db.DBTX) (int64, error) { panic("seam") }

// Orphans ends open tasks of runs that have ended.
func Orphans(ctx context.Context, q db.DBTX) (int64, error) { panic("seam") }

// Evaluation reads a stored evaluation's document.
func Evaluation(ctx context.Context, q db.DBTX, hash string) (json.RawMessage, error) { panic("seam") }

// Evaluated is the row that stores an evaluation, for decisions that are not of a call's request.
func Evaluated(e policy.Evaluation) runlog.Row { panic("seam") }
