package tool

import (
	"encoding/json"
	"fmt"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
)

// PolicyRun is what policy must know of a run. Whoever asks policy about a call
// takes it from here, so that all ask the same.
func PolicyRun(r db.Run) (policy.Run, error) {
	var p policy.Run
	if r.ToolPolicy != nil {
		if err := json.Unmarshal(r.ToolPolicy, &p); err != nil {
			return p, fmt.Errorf("read the run's tool policy: %w", err)
		}
	}
	p.Guest = r.GuestScope != nil
	if r.AutopilotID != nil {
		p.AgentID = *r.AutopilotID
	}
	return p, nil
}

// Asked is what policy must know of a tool.
func (s Spec) Asked() policy.Tool {
	return policy.Tool{
		Name: s.Name, Provider: s.Provider, Groups: s.Groups, Writes: s.Writes, NeedsApproval: s.NeedsApproval,
		Client: s.Kind == Client,
	}
}
