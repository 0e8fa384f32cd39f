package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Limits are a run's caps, as they are stored. Zero means the default.
type Limits struct {
	MaxSteps       int32 `json:"maxSteps,omitempty"`
	MaxWallClockMs int64 `json:"maxWallClockMs,omitempty"`
	MaxTokens      int64 `json:"maxTokens,omitempty"`
	MaxModelCalls  int32 `json:"maxModelCalls,omitempty"`
	// MaxToolCalls are calls that the model asks for.
	MaxToolCalls     int32 `json:"maxToolCalls,omitempty"`
	MaxParallelTools int32 `json:"maxParallelTools,omitempty"`
}

// Envelope is what a run is started with. Its canonical form is what a repeat
// is compared with.
type Envelope struct {
	RunID                string          `json:"runId"`
	ThreadID             string          `json:"threadId"`
	UserID               *int64          `json:"userId,omitempty"`
	GuestScope           *string         `json:"guestScope,omitempty"`
	AutopilotID          *string         `json:"autopilotId,omitempty"`
	AuthenticatedSession bool            `json:"authenticatedSession"`
	ToolPolicy           json.RawMessage `json:"toolPolicy,omitempty"`
	ClientTools          json.RawMessage `json:"clientTools,omitempty"`
	KeepOpen             bool            `json:"keepOpen"`
	Limits               *Limits         `json:"limits,omitempty"`
	// AuthorizationID names the authorization that pays; nil leaves it to whose
	// the run is.
	AuthorizationID *string `json:"authorizationId,omitempty"`
}

// Owner is who the run will belong to.
func (e Envelope) Owner() Owner {
	guest := ""
	if e.GuestScope != nil {
		guest = *e.GuestScope
	}
	return OwnerOf(e.UserID, guest)
}

// Start creates a run, or finds the one that the same envelope created.
// replay says which. Another envelope under the same run_id is run_conflict.
func Start(ctx context.Context, pool *pgxpool.Pool, e Envelope) (r db.Run, replay bool, err error) {
	requestHash, err := canon.HashJSON(e)
	if err != nil {
		return r, false, fault.New(api.InvalidRequest, "the run's envelope cannot be hashed: %v", err)
	}
	params, err := startParams(ctx, e, requestHash)
	if err != nil {
		return r, false, err
	}
	q := db.New(pool)
	started, err := q.RunStart(ctx, params)
	crash.At("run.started_row")
	if err == nil {
		return db.Run(started), false, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return r, false, fmt.Errorf("start run: %w", err)
	}
	if r, err = q.RunGet(ctx, e.RunID); err != nil {
		return r, true, fmt.Errorf("start run: %w", err)
	}
	if r.RequestHash != requestHash {
		return r, true, fault.New(api.RunConflict,
			"the runId %s was used before with another body or owner; use a new runId", e.RunID)
	}
	return r, true, nil
}

func startParams(ctx context.Context, e Envelope, requestHash string) (db.RunStartParams, error) {
	trace := telemetry.TraceFrom(ctx)
	accepted := event.RunAcceptedV1{
		RunID: e.RunID, ThreadID: e.ThreadID, Owner: string(e.Owner()), AutopilotID: e.AutopilotID,
		AuthenticatedSession: e.AuthenticatedSession, KeepOpen: e.KeepOpen, RequestHash: requestHash,
	}
	payload, content, hash, err := runlog.First(e.RunID, accepted)
	if err != nil {
		return db.RunStartParams{}, err
	}
	var limits json.RawMessage
	if e.Limits != nil {
		if limits, err = json.Marshal(e.Limits); err != nil {
			return db.RunStartParams{}, err
		}
	}
	return db.RunStartParams{
		RunKey: canon.NewKey(), RunID: e.RunID, ThreadID: e.ThreadID, UserID: e.UserID, GuestScope: e.GuestScope,
		AutopilotID: e.AutopilotID, AuthenticatedSession: e.AuthenticatedSession, ToolPolicy: e.ToolPolicy, ClientTools: e.ClientTools,
		Limits: limits, KeepOpen: e.KeepOpen, AuthorizationID: e.AuthorizationID, RequestHash: requestHash,
		Traceparent: nonEmpty(trace.Parent), Tracestate: nonEmpty(trace.State), RequestID: nonEmpty(trace.RequestID),
		EventHash: hash, EventType: accepted.EventType(), EventVersion: int32(accepted.EventVersion()),
		Payload: payload, ContentHash: content,
	}, nil
}

func nonEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
