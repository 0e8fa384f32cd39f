package telemetry

import (
	"context"
	"io"
	"log/slog"
)

// NewLogger writes JSON lines and adds trace_id, traceparent and x_request_id
// to every line whose context carries a trace.
func NewLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(traceHandler{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})})
}

type traceHandler struct{ slog.Handler }

func (h traceHandler) Handle(ctx context.Context, r slog.Record) error {
	t := TraceFrom(ctx)
	if id := t.TraceID(); id != "" {
		r.AddAttrs(slog.String("trace_id", id), slog.String("traceparent", t.Parent))
	}
	if t.RequestID != "" {
		r.AddAttrs(slog.String("x_request_id", t.RequestID))
	}
	return h.Handler.Handle(ctx, r)
}

func (h traceHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return traceHandler{h.Handler.WithAttrs(a)}
}

func (h traceHandler) WithGroup(name string) slog.Handler {
	return traceHandler{h.Handler.WithGroup(name)}
}
