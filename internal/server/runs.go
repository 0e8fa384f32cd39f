package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/run"
)

// StartRun creates a run, or answers again for the one that the same body created.
func (s *Server) StartRun(ctx context.Context, req api.StartRunRequestObject) (api.StartRunResponseObject, error) {
	envelope, err := envelopeOf(*req.Body)
	if err != nil {
		return nil, err
	}
	if err := s.clientToolsFit(ctx, envelope); err != nil {
		return nil, err
	}
	if err := startsFor(callerOf(ctx), *req.Body); err != nil {
		return nil, err
	}
	if err := s.mayPay(ctx, envelope); err != nil {
		return nil, err
	}
	if err := s.Admission.newRun(ctx, s.Pool, envelope); err != nil {
		return nil, err
	}
	r, replay, err := run.Start(ctx, s.Pool, envelope)
	if err != nil {
		return nil, err
	}
	answer := api.StartRun202JSONResponse{Body: api.StartRunResponse{
		RunID: r.RunID, ThreadID: r.ThreadID, Status: api.StartRunResponseStatusAccepted, StreamURL: streamURL(r),
	}}
	if !replay {
		return answer, nil
	}
	answer.Headers.IdempotentReplay = &replay
	running, err := lease.Live(ctx, s.Pool, r.RunKey)
	if err != nil {
		return nil, err
	}
	if running {
		answer.Body.Status = api.StartRunResponseStatusAlreadyRunning
	}
	return answer, nil
}

// clientToolsFit refuses client tools that cannot be called. A run that was
// started before keeps what it has.
func (s *Server) clientToolsFit(ctx context.Context, e run.Envelope) error {
	if e.ClientTools == nil {
		return nil
	}
	unfit := s.Tools.Catalog.CheckClientTools(e.ClientTools)
	if unfit == nil {
		return nil
	}
	if _, err := run.Get(ctx, s.Pool, e.Owner(), e.RunID); err == nil {
		return nil
	}
	return unfitBody("/clientTools", unfit.Error())
}

// envelopeOf checks what a schema cannot: rules across fields.
func envelopeOf(body api.StartRunRequest) (run.Envelope, error) {
	if body.GuestScope == nil && !body.AuthenticatedSession {
		return run.Envelope{}, unfitBody("/guestScope", "must be sent when authenticatedSession is false")
	}
	if body.GuestScope == nil && body.UserID == nil {
		return run.Envelope{}, unfitBody("/userId", "must be sent, or guestScope: a run belongs to somebody")
	}
	e := run.Envelope{
		RunID: body.RunID, ThreadID: body.ThreadID, UserID: body.UserID, GuestScope: body.GuestScope,
		AutopilotID: body.AutopilotID, AuthenticatedSession: body.AuthenticatedSession, KeepOpen: deref(body.KeepOpen), AuthorizationID: body.AuthorizationID,
	}
	if body.ToolPolicy != nil {
		policy, err := canon.Marshal(body.ToolPolicy)
		if err != nil {
			return run.Envelope{}, fmt.Errorf("start run: %w", err)
		}
		e.ToolPolicy = redact.Strings(policy)
	}
	if len(body.ClientTools) > 0 {
		tools, err := canon.Marshal(body.ClientTools)
		if err != nil {
			return run.Envelope{}, fmt.Errorf("start run: %w", err)
		}
		e.ClientTools = redact.Strings(tools)
	}
	if l := body.Limits; l != nil {
		e.Limits = &run.Limits{
			MaxSteps: deref(l.MaxSteps), MaxWallClockMs: deref(l.MaxWallClockMs),
			MaxTokens: deref(l.MaxTokens), MaxModelCalls: deref(l.MaxModelCalls),
			MaxToolCalls: deref(l.MaxToolCalls), MaxParallelTools: deref(l.MaxParallelTools),
		}
	}
	return e, nil
}

func unfitBody(pointer, message string) error {
	return fault.New(api.InvalidRequest, "body %s: %s", pointer, message).With("pointer", pointer)
}

// ListRuns pages through the caller's runs, newest first.
func (s *Server) ListRuns(ctx context.Context, req api.ListRunsRequestObject) (api.ListRunsResponseObject, error) {
	owner, err := ownerOf(ctx)
	if err != nil {
		return nil, err
	}
	before, err := pageAfter(req.Params.PageToken)
	if err != nil {
		return nil, err
	}
	runs, next, err := run.List(ctx, s.Pool, owner, run.Filter{
		ThreadID: req.Params.ThreadID, Status: (*string)(req.Params.Status), Before: before, Limit: int(*req.Params.Limit),
	})
	if err != nil {
		return nil, err
	}
	page := api.RunList{Runs: make([]api.RunSummary, 0, len(runs)), NextPageToken: pageToken(next)}
	for _, r := range runs {
		page.Runs = append(page.Runs, summaryOf(r))
	}
	return api.ListRuns200JSONResponse{Body: page}, nil
}

// GetRun tells a run as its log has it at one moment.
func (s *Server) GetRun(ctx context.Context, req api.GetRunRequestObject) (api.GetRunResponseObject, error) {
	var answer api.GetRun200JSONResponse
	err := s.atOneMoment(ctx, func(q db.DBTX) error {
		r, err := runOf(ctx, q, req.RunIDParam)
		if err != nil {
			return err
		}
		answer.Body, err = snapshotOf(ctx, q, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// longestText is how many characters a user's message may have.
const longestText = 100_000

// AppendFrame puts a frame into the run's log, once.
func (s *Server) AppendFrame(ctx context.Context, req api.AppendFrameRequestObject) (api.AppendFrameResponseObject, error) {
	frame, err := frameOf(*req.Body)
	if err != nil {
		return nil, err
	}
	r, err := runOf(ctx, s.Pool, req.RunIDParam)
	if err != nil {
		return nil, err
	}
	counted := s.Admission.frame(&frame, run.Owner(r.Owner))
	accepted, err := run.AppendFrame(ctx, s.Pool, s.Log, r, frame)
	if err != nil {
		return nil, err
	}
	if !accepted.Replay {
		counted()
	}
	body := api.AppendFrameResponse{
		RunID: r.RunID, FrameID: frame.FrameID, Status: api.AppendFrameResponseStatusAccepted,
		IdempotentReplay: accepted.Replay, PayloadHash: accepted.PayloadHash, Seq: accepted.Seq,
	}
	if accepted.Replay {
		return api.AppendFrame200JSONResponse{Body: body}, nil
	}
	return api.AppendFrame202JSONResponse{Body: body}, nil
}

func frameOf(body api.AppendFrameRequest) (run.Frame, error) {
	if body.Type == toolRequest {
		return run.Frame{}, unfitBody("/type", "a tool_request comes from executeTool alone")
	}
	if body.Type == "user_message" {
		text, _ := body.Payload["text"].(string)
		switch {
		case strings.TrimSpace(text) == "":
			return run.Frame{}, unfitBody("/payload/text", "a user_message needs a text that is not empty")
		case utf8.RuneCountInString(text) > longestText:
			return run.Frame{}, unfitBody("/payload/text", fmt.Sprintf("must have at most %d characters", longestText))
		}
	}
	payload, err := canon.Marshal(body.Payload)
	if err != nil {
		return run.Frame{}, fmt.Errorf("append frame: %w", err)
	}
	f := run.Frame{FrameID: body.FrameID, Type: body.Type, Payload: payload, Mode: run.Mode(deref(body.Mode))}
	if body.Source != nil {
		f.Source = &run.FrameSource{Kind: body.Source.Kind, RequestID: deref(body.Source.RequestID)}
	}
	return f, nil
}

// CancelRun asks a run to stop. Asking twice is fine.
func (s *Server) CancelRun(ctx context.Context, req api.CancelRunRequestObject) (api.CancelRunResponseObject, error) {
	r, err := runOf(ctx, s.Pool, req.RunIDParam)
	if err != nil {
		return nil, err
	}
	canceled, err := run.Cancel(ctx, s.Log, r, callerOf(ctx).Actor, redact.Text(deref(deref(req.Body).Reason)))
	if err != nil {
		return nil, err
	}
	body := api.CancelRunResponse{
		RunID: r.RunID, Status: api.RunStatus(canceled.Status),
		CancelRequested: canceled.Requested, IdempotentReplay: canceled.Replay,
	}
	if canceled.Replay {
		return api.CancelRun200JSONResponse{Body: body}, nil
	}
	return api.CancelRun202JSONResponse{Body: body}, nil
}

func summaryOf(r db.Run) api.RunSummary {
	return api.RunSummary{
		RunID: r.RunID, ThreadID: r.ThreadID, UserID: r.UserID, GuestScope: r.GuestScope, AutopilotID: r.AutopilotID,
		Status: api.RunStatus(r.Status), ReasonClass: (*api.ReasonClass)(r.ReasonClass), Reason: r.Reason, KeepOpen: r.KeepOpen,
		AcceptedAt: r.InsertedAt.UTC(), StartedAt: utc(r.StartedAt), FinishedAt: utc(r.FinishedAt),
	}
}

func streamURL(r db.Run) string { return runURL(r) + "/stream" }

func runURL(r db.Run) string { return "/internal/v1/runs/" + url.PathEscape(r.RunID) }

// pageAfter reads a page token, which is the key of the last run of the page before.
func pageAfter(token *string) (*uuid.UUID, error) {
	if token == nil {
		return nil, nil
	}
	key, err := uuid.Parse(*token)
	if err != nil {
		return nil, refuseParameter("query", "pageToken", "must be the nextPageToken of the page before, as it was told")
	}
	return &key, nil
}

func pageToken(next *uuid.UUID) *string {
	if next == nil {
		return nil
	}
	token := next.String()
	return &token
}

// storedAs reads a stored object into its shape on the wire; nil stays nil.
func storedAs[T any](raw []byte) (*T, error) {
	if raw == nil {
		return nil, nil
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, fmt.Errorf("read what is stored of a run: %w", err)
	}
	return &v, nil
}
