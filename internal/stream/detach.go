package stream

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"

	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// A stream that waits for a live run's news holds no more than it needs: it takes the
// connection over from the HTTP server, whose buffers, request and stack are
// then free, and writes the rest of the chunked body itself.

// detach takes the connection over and goes on in a goroutine of its own; false
// says that this connection cannot be taken over. The request's context ends
// with its handler, so nothing may depend on it afterwards.
func (s *Stream) detach(ctx context.Context) bool {
	if s.raw != nil || s.fixed || s.Reset || !s.live || s.cursor < s.head {
		return false
	}
	if !s.release() {
		return false // the client has gone, and the place with it
	}
	conn, buffered, err := s.conn.Hijack()
	if err != nil {
		s.fixed = true
		s.release = context.AfterFunc(ctx, func() { s.h.give(s.key) })
		return false
	}
	s.raw, s.w, s.conn, s.release = conn, nil, nil, func() bool { return true }
	s.ear = &ear{conn: conn}
	if n := buffered.Reader.Buffered(); n > 0 {
		heard, _ := buffered.Reader.Peek(n) // they are there
		s.ear.heard = slices.Clone(heard)
	}
	ended := func(int64) {}
	if s.Detached != nil {
		ended = s.Detached()
		s.Detached = nil
	}
	own, gone := context.WithCancel(telemetry.WithTrace(context.Background(), telemetry.TraceFrom(ctx)))
	s.h.detached.Add(1)
	go s.goOn(own, gone, ended)
	return true
}

// goOn sends the rest of a detached stream.
func (s *Stream) goOn(ctx context.Context, gone context.CancelFunc, ended func(int64)) {
	defer s.h.detached.Done()
	defer gone()
	go s.ear.listen(gone)
	ctx, stop := s.until(ctx)
	defer stop()
	s.finish(ctx, s.attempt(ctx, s.follow))
	ended(s.sent)
}

// chunks are buffers for framing what is written.
var chunks = sync.Pool{New: func() any { return new([]byte) }}

// chunk writes text as a chunk of the body.
func (s *Stream) chunk(text []byte) error {
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	b := strconv.AppendInt((*buf)[:0], int64(len(text)), 16)
	b = append(b, "\r\n"...)
	b = append(b, text...)
	b = append(b, "\r\n"...)
	*buf = b
	_, err := s.raw.Write(b)
	s.sent += int64(len(text))
	return err
}

// closeRaw ends a detached stream: a whole body with its last chunk, after which
// the connection may be used again, a broken one with the connection.
func (s *Stream) closeRaw(ctx context.Context, whole bool) {
	if whole {
		if _, err := io.WriteString(s.raw, "0\r\n\r\n"); err == nil && s.ear.over() {
			return
		}
	}
	if err := s.raw.Close(); err != nil && whole && !errors.Is(err, net.ErrClosed) {
		slog.WarnContext(ctx, "a stream's connection did not close", "run_id", s.runID, "error", err.Error())
	}
}

// Wait returns when no stream goes on that has taken its connection over, which
// http.Server.Shutdown does not wait for, or when ctx ends. It is called after
// Shutdown.
func (h *Handler) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		h.detached.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errDetached = errors.New("the stream goes on without its request")
