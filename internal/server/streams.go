package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

// sse is a response that writes itself.
type sse func(http.ResponseWriter) error

// VisitStreamRunResponse writes the stream.
func (f sse) VisitStreamRunResponse(w http.ResponseWriter) error { return f(w) }

// StreamRun follows a run from a cursor, in the parts that the client takes;
// Last-Event-ID wins over the query's cursor.
func (s *Server) StreamRun(ctx context.Context, req api.StreamRunRequestObject) (api.StreamRunResponseObject, error) {
	cursor := deref(req.Params.StreamCursorParam)
	if req.Params.LastEventIDParam != nil {
		cursor = *req.Params.LastEventIDParam
	}
	parts := deref(req.Params.StreamPartsParam)
	dialect, known := stream.DialectNamed(string(parts))
	if !known {
		return nil, fmt.Errorf("the contract has parts %q that streams do not know", parts)
	}
	opened, r, head, err := s.openStream(ctx, req.RunIDParam, cursor)
	switch {
	case errors.Is(err, stream.ErrEnded):
		return api.StreamRun204Response{}, nil
	case errors.Is(err, stream.ErrDraining):
		// A client that follows gives up on an error and comes back after a cut.
		panic(http.ErrAbortHandler)
	case errors.Is(err, stream.ErrBeyondHead):
		return nil, beyondHead(head)
	}
	if stale := (*stream.StaleError)(nil); errors.As(err, &stale) {
		return nil, staleCursor(r, head)
	}
	if err != nil {
		return nil, err
	}
	opened.Dialect, opened.Reset, opened.Detached = dialect, admittedOf(ctx).http10, admittedOf(ctx).detach
	opened.Expires = time.Now().Add(callerOf(ctx).Claims.Left(crash.Now()))
	return sse(func(w http.ResponseWriter) error { return opened.ServeSSE(ctx, w) }), nil
}

// openStream opens a stream of a run of the caller's. When others read the run at
// its end in this process, the database is not asked; r and head are empty then.
func (s *Server) openStream(ctx context.Context, runID string, cursor int64) (_ *stream.Stream, r db.Run, head runlog.Head, err error) {
	if known, seq, ok := s.Streams.Followed(runID, cursor); ok && mayRead(ctx, known) {
		opened, err := s.Streams.OpenFollowed(ctx, known, seq, cursor)
		return opened, r, head, err
	}
	if r, err = runOf(ctx, s.Pool, runID); err != nil {
		return nil, r, head, err
	}
	if head, err = runlog.GetHead(ctx, s.Pool, r.RunKey); err != nil {
		return nil, r, head, err
	}
	opened, err := s.Streams.Open(ctx, r, head, cursor)
	return opened, r, head, err
}

// ProbeRunStream tells where a run's stream begins and ends.
func (s *Server) ProbeRunStream(ctx context.Context, req api.ProbeRunStreamRequestObject) (api.ProbeRunStreamResponseObject, error) {
	r, err := runOf(ctx, s.Pool, req.RunIDParam)
	if err != nil {
		return nil, err
	}
	head, err := runlog.GetHead(ctx, s.Pool, r.RunKey)
	if err != nil {
		return nil, err
	}
	floor, closed := head.Floor(), runlog.Terminal(head.Status)
	return api.ProbeRunStream200Response{Headers: api.ProbeRunStream200ResponseHeaders{
		XOaStreamFloor: &floor, XOaStreamHead: &head.Seq, XOaStreamClosed: &closed,
	}}, nil
}

// ListRunEvents reads a page of a run's log.
func (s *Server) ListRunEvents(ctx context.Context, req api.ListRunEventsRequestObject) (api.ListRunEventsResponseObject, error) {
	var answer api.ListRunEvents200JSONResponse
	err := s.atOneMoment(ctx, func(q db.DBTX) error {
		r, err := runOf(ctx, q, req.RunIDParam)
		if err != nil {
			return err
		}
		answer.Body, err = eventPage(ctx, q, r, *req.Params.Cursor, int(*req.Params.Limit))
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func eventPage(ctx context.Context, q db.DBTX, r db.Run, cursor int64, limit int) (api.RunEventPage, error) {
	head, err := runlog.GetHead(ctx, q, r.RunKey)
	switch {
	case err != nil:
		return api.RunEventPage{}, err
	case cursor < head.Floor():
		return api.RunEventPage{}, staleCursor(r, head)
	case cursor > head.Seq:
		return api.RunEventPage{}, beyondHead(head)
	}
	// One event more at the front, for the first event's prevHash.
	rows, err := runlog.After(ctx, q, r.RunKey, max(cursor-1, 0), limit+min(int(cursor), 1))
	if err != nil {
		return api.RunEventPage{}, err
	}
	page := api.RunEventPage{
		RunID: r.RunID, Events: make([]api.RunEvent, 0, len(rows)), NextCursor: cursor,
		Floor: head.Floor(), Head: head.Seq, Closed: runlog.Terminal(head.Status),
	}
	var prev *canon.Digest
	if cursor == head.Floor() {
		first := canon.Digest(head.PrevHash(r.RunID))
		prev = &first
	}
	for _, row := range rows {
		if len(page.Events) == limit {
			break
		}
		if row.Seq > cursor {
			e, err := eventOf(row, prev)
			if err != nil {
				return api.RunEventPage{}, err
			}
			page.Events = append(page.Events, e)
			page.NextCursor = row.Seq
		}
		hash := canon.Digest(row.EventHash)
		prev = &hash
	}
	page.UpToDate = page.NextCursor == head.Seq
	return page, nil
}

func eventOf(row db.RunLog, prev *canon.Digest) (api.RunEvent, error) {
	e := api.RunEvent{
		Seq: row.Seq, EventType: row.EventType, EventVersion: row.EventVersion,
		ContentHash: canon.Digest(row.ContentHash).String(), EventHash: canon.Digest(row.EventHash).String(),
		Traceparent: row.Traceparent, Tracestate: row.Tracestate, RequestID: row.RequestID, InsertedAt: row.InsertedAt.UTC(),
	}
	if prev != nil {
		hash := prev.String()
		e.PrevHash = &hash
	}
	if err := json.Unmarshal(row.Payload, &e.Payload); err != nil {
		return e, fmt.Errorf("event %d: %w", row.Seq, err)
	}
	return e, nil
}

func staleCursor(r db.Run, head runlog.Head) error {
	floor := head.Floor()
	return fault.New(api.StaleCursor, "events up to seq %d are no longer kept; read the snapshot and stream from its cursor, "+
		"or restart at cursor %d", floor, floor).
		With("floor", floor).With("head", head.Seq).With("restartCursor", floor).With("snapshotUrl", runURL(r))
}

func beyondHead(head runlog.Head) error {
	return fault.New(api.InvalidCursor, "the cursor is beyond the run's newest event, which is %d", head.Seq).
		With("head", head.Seq)
}
