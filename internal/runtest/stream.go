package runtest

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

// Reply is the events of a run that answers with one text part, from
// run.started to stream.closed.
func Reply(deltas ...string) []event.Event {
	const part = "text-1"
	stop, text := event.RunFinishedV1FinishReasonStop, ""
	events := []event.Event{
		event.RunStartedV1{MessageID: "message-1"},
		event.RunStepStartedV1{Step: 1, FrameID: "frame-1", Attempt: 1},
		event.MessageStartedV1{PartID: part},
	}
	for _, d := range deltas {
		text += d
		events = append(events, event.MessageDeltaV1{PartID: part, Delta: d})
	}
	return append(events,
		event.MessageFinishedV1{PartID: part, Text: text},
		event.RunStepFinishedV1{Step: 1, FinishReason: event.RunStepFinishedV1FinishReasonStop},
		event.FrameFinishedV1{FrameID: "frame-1", FrameSeq: 1},
		event.RunFinishedV1{Status: event.RunFinishedV1StatusCompleted, ReasonClass: "completed", Reason: "Every frame was answered.", FinishReason: &stop},
		event.StreamClosedV1{},
	)
}

// Streams serves GET /runs/{run}/stream?parts= of every run, without authentication.
func Streams(pool *pgxpool.Pool, h *stream.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /runs/{run}/stream", func(w http.ResponseWriter, req *http.Request) {
		r, err := db.New(pool).RunGet(req.Context(), req.PathValue("run"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		head, err := runlog.GetHead(req.Context(), pool, r.RunKey)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		cursor, err := cursorOf(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		dialect, known := stream.DialectNamed(req.URL.Query().Get("parts"))
		if !known {
			http.Error(w, "no such parts", http.StatusBadRequest)
			return
		}
		s, err := h.Open(req.Context(), r, head, cursor)
		if err != nil {
			http.Error(w, err.Error(), statusOf(err))
			return
		}
		s.Dialect, s.Reset = dialect, !req.ProtoAtLeast(1, 1)
		if err := s.ServeSSE(req.Context(), w); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return mux
}

func cursorOf(req *http.Request) (int64, error) {
	text := req.Header.Get("Last-Event-ID")
	if text == "" {
		text = req.URL.Query().Get("cursor")
	}
	if text == "" {
		return 0, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

func statusOf(err error) int {
	var stale *stream.StaleError
	switch {
	case errors.Is(err, stream.ErrEnded):
		return http.StatusNoContent
	case errors.Is(err, stream.ErrBeyondHead):
		return http.StatusBadRequest
	case errors.As(err, &stale):
		return http.StatusGone
	default:
		return http.StatusServiceUnavailable
	}
}
