package server

import (
	"context"
	"slices"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// GetThreadState tells a thread's newest runs and what was said in them, as far
// as they are the caller's.
func (s *Server) GetThreadState(ctx context.Context, req api.GetThreadStateRequestObject) (api.GetThreadStateResponseObject, error) {
	owner, err := ownerOf(ctx)
	if err != nil {
		return nil, err
	}
	before, err := pageAfter(req.Params.PageToken)
	if err != nil {
		return nil, err
	}
	state := api.ThreadState{ThreadID: req.ThreadIDParam, Runs: []api.RunSummary{}, Messages: []api.ThreadMessage{}}
	err = s.atOneMoment(ctx, func(q db.DBTX) error {
		runs, next, err := run.List(ctx, q, owner, run.Filter{
			ThreadID: &req.ThreadIDParam, Before: before, Limit: int(*req.Params.Limit),
		})
		if err != nil {
			return err
		}
		state.NextPageToken = pageToken(next)
		if err := threadExists(ctx, q, owner, req.ThreadIDParam, len(runs) > 0); err != nil {
			return err
		}
		told, err := tellRuns(ctx, q, runs)
		if err != nil {
			return err
		}
		for _, r := range slices.Backward(runs) {
			state.Runs = append(state.Runs, summaryOf(r))
			state.Messages = append(state.Messages, told[r.RunKey].messages()...)
			if !runlog.Terminal(r.Status) {
				state.ActiveRunID = &r.RunID
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return api.GetThreadState200JSONResponse{Body: state}, nil
}

// threadExists refuses a thread in which the owner has no run at all. A page
// past the last one is empty, not missing.
func threadExists(ctx context.Context, q db.DBTX, owner run.Owner, threadID string, seen bool) error {
	if !seen {
		any, _, err := run.List(ctx, q, owner, run.Filter{ThreadID: &threadID, Limit: 1})
		if err != nil {
			return err
		}
		seen = len(any) > 0
	}
	if !seen {
		return fault.New(api.ThreadNotFound, "no thread of yours has this id")
	}
	return nil
}
