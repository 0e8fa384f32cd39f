package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

const (
	pageEvents = 256      // events that one read of the log gives
	writeBytes = 64 << 10 // that one write deadline is for
)

// Stream is one reader of one run.
type Stream struct {
	// Reset makes an early end a TCP reset. It is for requests of HTTP/1.0,
	// where the body ends with the connection and so has no other broken end.
	Reset bool
	// Dialect is the parts that the client takes.
	Dialect Dialect
	// Expires is when the token that opened the stream is worth nothing any
	// more; zero is never. ExpiryGrace later the stream is broken off.
	Expires time.Time

	// Detached, when set, is called when the stream goes on without its request,
	// whose handler then returns. What it gives is called at the stream's end,
	// with how many bytes of the body were sent since.
	Detached func() (ended func(bytes int64))

	h      *Handler
	run    *db.Run // until the reader has come to the end of the log
	key    uuid.UUID
	runID  string
	live   bool  // the run had not ended when the stream was opened
	head   int64 // the newest event when the stream was opened
	cursor int64 // the last event sent
	opened time.Time
	// release says whether the reader's place is still to be given back.
	release func() bool
	tail    *tail // set when the reader has come to the end of the log

	w         http.ResponseWriter
	conn      *http.ResponseController
	fixed     bool     // the connection cannot be taken over
	raw       net.Conn // set when it was
	ear       *ear     // of raw
	sent      int64    // bytes of the body since
	heartbeat *time.Timer
}

// ServeSSE sends the stream and returns nil after its [DONE], or when the stream
// has to wait and goes on without the request (see Detached). Every other end
// panics with http.ErrAbortHandler, so that the client sees a broken body;
// middleware must let that panic pass. An error means that w cannot carry a
// stream and nothing was written. ctx is the request's.
func (s *Stream) ServeSSE(ctx context.Context, w http.ResponseWriter) error {
	s.w, s.conn = w, http.NewResponseController(w)
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.h.cfg.WriteTimeout)); err != nil {
		return fmt.Errorf("stream: the response takes no write deadline: %w", err)
	}
	bounded, stop := s.until(ctx)
	defer stop()
	err := s.attempt(bounded, s.serve)
	if errors.Is(err, errDetached) {
		return nil
	}
	s.finish(bounded, err)
	return nil
}

// until bounds ctx by the token's time.
func (s *Stream) until(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.Expires.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadlineCause(ctx, s.Expires.Add(s.h.cfg.ExpiryGrace), errExpired)
}

// errPanicked says that there was a fault of ours, which is logged.
var errPanicked = errors.New("the stream panicked")

// attempt does a part of the stream's work; a panic harms no other stream.
func (s *Stream) attempt(ctx context.Context, work func(context.Context) error) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			slog.ErrorContext(ctx, "a stream panicked", "run_id", s.runID, "panic", fault, "stack", string(debug.Stack()))
			err = errPanicked
		}
	}()
	return work(ctx)
}

// finish gives back what the stream holds and ends its body: cleanly if err is
// nil.
func (s *Stream) finish(ctx context.Context, err error) {
	end := outcomeOf(ctx, err)
	if end == failed && !errors.Is(err, errPanicked) {
		slog.ErrorContext(ctx, "a stream was broken off", "run_id", s.runID, "cursor", s.cursor, "error", err.Error())
	}
	if s.heartbeat != nil {
		s.heartbeat.Stop()
	}
	if s.tail != nil {
		s.h.tails.leave(s.tail)
	}
	if s.release() {
		s.h.give(s.key)
	}
	s.h.metrics.ends.WithLabelValues(string(end)).Inc()
	if s.raw != nil {
		s.closeRaw(ctx, end == done)
	} else if end != done {
		s.abort()
	}
}

// errExpired says that the token that opened the stream has expired.
var errExpired = errors.New("the token has expired")

// writeError says that the connection did not take a write.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

func outcomeOf(ctx context.Context, err error) outcome {
	var write writeError
	switch {
	case err == nil:
		return done
	case errors.Is(err, ErrDraining):
		return drained
	case errors.Is(context.Cause(ctx), errExpired):
		return expired
	case errors.Is(err, http.ErrNotSupported):
		return failed
	case errors.As(err, &write) && errors.Is(err, os.ErrDeadlineExceeded):
		return slowReader
	case errors.As(err, &write) || ctx.Err() != nil:
		return clientGone
	default:
		return failed
	}
}

// abort breaks the connection.
func (s *Stream) abort() {
	if s.Reset {
		if c, _, err := s.conn.Hijack(); err == nil {
			if tcp, ok := c.(interface{ SetLinger(int) error }); ok {
				_ = tcp.SetLinger(0) // the connection closes either way
			}
			_ = c.Close() // it may be broken already
		}
	}
	panic(http.ErrAbortHandler)
}

func (s *Stream) serve(ctx context.Context) error {
	s.heartbeat = time.NewTimer(s.h.cfg.Heartbeat)
	s.header()
	if err := s.write([]byte(": stream-open\nretry: " + millis(s.h.cfg.Retry) + "\n\n")); err != nil {
		return err
	}
	return s.follow(ctx)
}

// follow sends events until the stream ends, or has to wait and can do so
// without its request.
func (s *Stream) follow(ctx context.Context) error {
	for {
		select {
		case <-s.h.draining:
			return s.drain()
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		found, changed, err := s.next(ctx)
		if err != nil {
			return err
		}
		for _, b := range found {
			if err := s.send(b); err != nil {
				return err
			}
			if b.closed {
				return nil
			}
		}
		if len(found) > 0 {
			continue
		}
		if s.detach(ctx) {
			return errDetached
		}
		if err := s.wait(ctx, changed); err != nil {
			return err
		}
	}
}

// next is the batches after the cursor, or what tells when there may be some.
func (s *Stream) next(ctx context.Context) (found []batch, changed <-chan struct{}, err error) {
	if s.tail == nil {
		if s.tail = s.h.tails.join(s.run, s.cursor, s.head); s.tail != nil {
			s.run = nil
		}
	}
	behind := true
	if s.tail != nil {
		found, changed, behind, err = s.tail.after(s.cursor)
	}
	if !behind {
		return found, changed, err
	}
	b, err := read(ctx, s.h.tails.logs.alone, s.key, s.cursor)
	if err == nil && b.count == 0 {
		err = fmt.Errorf("%w: nothing follows %d", errGap, s.cursor)
	}
	return []batch{b}, nil, err
}

// wait returns when there may be news, and keeps the connection alive meanwhile.
func (s *Stream) wait(ctx context.Context, changed <-chan struct{}) error {
	for {
		select {
		case <-changed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-s.h.draining:
			return nil
		case <-s.heartbeat.C:
			if err := s.write([]byte(": keep-alive\n\n")); err != nil {
				return err
			}
		}
	}
}

// send writes what the reader lacks of a batch.
func (s *Stream) send(b batch) error {
	for part := range slices.Chunk(b.from(s.cursor, s.Dialect), writeBytes) {
		if err := s.write(part); err != nil {
			return err
		}
	}
	s.h.metrics.blocks.Add(float64(b.last() - s.cursor))
	if s.cursor < s.head && s.head <= b.last() {
		s.h.metrics.catchUp.Observe(time.Since(s.opened).Seconds())
	}
	s.cursor = b.last()
	return nil
}

// drain tells the client when to come back, apart from the others, and ends.
func (s *Stream) drain() error {
	later := s.h.cfg.Retry + rand.N(s.h.cfg.DrainSpread)
	return errors.Join(ErrDraining, s.write([]byte("retry: "+millis(later)+"\n\n")))
}

func (s *Stream) header() {
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Vercel-Ai-Ui-Message-Stream", "v1")
	h.Set("X-Oa-Run-Id", s.runID)
	s.w.WriteHeader(http.StatusOK)
}

// write sends text at once; a reader that does not take it in time is an error.
func (s *Stream) write(text []byte) error {
	if s.raw != nil {
		if err := s.raw.SetWriteDeadline(time.Now().Add(s.h.cfg.WriteTimeout)); err != nil {
			return writeError{err}
		}
		if err := s.chunk(text); err != nil {
			return writeError{err}
		}
		s.heartbeat.Reset(s.h.cfg.Heartbeat)
		return nil
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.h.cfg.WriteTimeout)); err != nil {
		return writeError{err}
	}
	if _, err := s.w.Write(text); err != nil {
		return writeError{err}
	}
	if err := s.conn.Flush(); err != nil {
		return writeError{err}
	}
	s.heartbeat.Reset(s.h.cfg.Heartbeat)
	return nil
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
