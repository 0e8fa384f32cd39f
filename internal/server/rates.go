package server

import (
	"context"
	"slices"
	"strings"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/registry"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// Rates are those that the extension manifests of the registry declare, each for
// the runs of who stored it.
func Rates(q db.DBTX) tool.Rates {
	return tool.Rates{Pool: q, Of: func(ctx context.Context, owner string, s tool.Spec) (most int, bounded bool, err error) {
		declared, err := registry.RatesOf(ctx, q, owner)
		for _, r := range declared {
			if bounds(r, s) && (!bounded || r.PerMinute < most) {
				most, bounded = r.PerMinute, true
			}
		}
		return most, bounded, err
	}}
}

// bounds says whether a manifest's rate is of a tool's provider: a manifest of
// comms.v1 names who sends the mail that the tool hands over, one of mcp.v1 the
// server without what the provider's name begins with.
func bounds(r registry.Rate, s tool.Spec) bool {
	switch r.ToolPack {
	case "mcp.v1":
		return s.Kind == tool.MCP && s.Provider == "mcp:"+strings.TrimPrefix(r.Provider, "mcp:")
	case "comms.v1":
		return slices.Contains(s.Groups, "comms")
	case "coding.v1":
		return slices.Contains(s.Groups, "coding") && s.Provider == r.Provider
	}
	return false
}
