// Package approval asks a person, waits durably, and records who decided what.
package approval

import (
	"encoding/json"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// Ask is a question.
type Ask struct {
	Kind       string // tool_call, raise_budget or resolve_unknown_settlement
	ToolCallID string
	Title      string
	Decider    string          // owner or operator
	Request    json.RawMessage // redacted
	ArgsHash   string
	PolicyHash string
	ReasonCode string
	For        time.Duration // until it expires
}

// ID names an approval: the same question of the same run has the same id.
func ID(runID string, a Ask) (string, error) { panic("not yet written") }

// Request is the change that asks: the row and approval.requested.
func Request(r db.Run, a Ask) (runlog.Change, error) { panic("not yet written") }
