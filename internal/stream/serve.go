package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

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

	h      *Handler
	run    db.Run
	head   int64 // the newest event when the stream was opened
	cursor int64 // the last event sent
	opened time.Time
	// release says whether the reader's place is still to be given back.
	release func() bool
	tail    *tail // set when the reader has come to the end of the log

	w         http.ResponseWriter
	conn      *http.ResponseController
	heartbeat *time.Timer
}

// ServeSSE sends the stream and returns nil after its [DONE]. Every other end
// panics with http.ErrAbortHandler, so that the client sees a broken body;
// middleware must let that panic pass. An error means that w cannot carry a
// stream and nothing was written. ctx is the request's.
func (s *Stream) ServeSSE(ctx context.Context, w http.ResponseWriter) error {
	s.w, s.conn = w, http.NewResponseController(w)
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.h.cfg.WriteTimeout)); err != nil {
		return fmt.Errorf("stream: the response takes no write deadline: %w", err)
	}
	if !s.Expires.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, s.Expires.Add(s.h.cfg.ExpiryGrace), errExpired)
		defer cancel()
	}
	end := failed
	defer func() {
		fault := recover()
		if fault != nil {
			slog.ErrorContext(ctx, "a stream panicked", "run_id", s.run.RunID, "panic", fault, "stack", string(debug.Stack()))
		}
		if s.tail != nil {
			s.h.tails.leave(s.tail)
		}
		if s.release() {
			s.h.give(s.run.RunKey)
		}
		s.h.metrics.ends.WithLabelValues(string(end)).Inc()
		if end != done {
			s.abort()
		}
	}()
	err := s.serve(ctx)
	if end = outcomeOf(ctx, err); end == failed {
		slog.ErrorContext(ctx, "a stream was broken off", "run_id", s.run.RunID, "cursor", s.cursor, "error", err.Error())
	}
	return nil
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
	defer s.heartbeat.Stop()
	s.header()
	if err := s.write([]byte(": stream-open\nretry: " + millis(s.h.cfg.Retry) + "\n\n")); err != nil {
		return err
	}
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
		if err := s.wait(ctx, changed); err != nil {
			return err
		}
	}
}

// next is the batches after the cursor, or what tells when there may be some.
func (s *Stream) next(ctx context.Context) (found []batch, changed <-chan struct{}, err error) {
	if s.tail == nil {
		s.tail = s.h.tails.join(s.run.RunKey, s.cursor, s.head)
	}
	behind := true
	if s.tail != nil {
		found, changed, behind, err = s.tail.after(s.cursor)
	}
	if !behind {
		return found, changed, err
	}
	b, err := read(ctx, s.h.pool, s.run.RunKey, s.cursor, pageEvents)
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
	h.Set("X-Oa-Run-Id", s.run.RunID)
	s.w.WriteHeader(http.StatusOK)
}

// write sends text at once; a reader that does not take it in time is an error.
func (s *Stream) write(text []byte) error {
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
