package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// stamped is a delta's text that says when it was made.
func stamped() string {
	return strconv.FormatInt(time.Now().UnixNano(), 10) + " a delta of a few words, as models do"
}

// serveStreams is a process of the service that also appends, on order.
func serveStreams(ctx context.Context, databaseURL string, in io.Reader, out io.Writer) error {
	p, err := newProcess(ctx, databaseURL, 1)
	if err != nil {
		return err
	}
	s := &serving{p: p}
	return errors.Join(obey(ctx, in, out, report{URL: p.url}, s.do), s.rest(ctx), p.close())
}

type serving struct {
	p    *process
	runs []db.Run
	work *workshop
}

// rest ends the executor, if there is one.
func (s *serving) rest(ctx context.Context) error {
	if s.work == nil {
		return nil
	}
	err := errors.Join(s.work.rest(ctx), s.work.stop())
	s.work = nil
	return err
}

func (s *serving) do(ctx context.Context, o order) (r report, err error) {
	ctx = telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
	switch o.Do {
	case "runs": // starts N runs, which the later orders are for
		s.runs = nil
		for range o.N {
			made, err := newRun(ctx, s.p)
			if err != nil {
				return r, err
			}
			s.runs, r.Runs = append(s.runs, made), append(r.Runs, made.RunID)
		}
		return r, nil
	case "grow": // appends N deltas to each run
		for _, to := range s.runs {
			if err := grow(ctx, s.p, to, o.N); err != nil {
				return r, err
			}
		}
		return r, nil
	case "pace": // appends Rate deltas a second
		got, err := paced(ctx, len(s.runs), o.Rate, o.For, func(ctx context.Context, client int) error {
			to := s.runs[client]
			_, err := s.p.log.Commit(ctx, runlog.Unit{RunKey: to.RunKey, RunID: to.RunID, Trace: telemetry.TraceFrom(ctx),
				Decide: runlog.Append(event.MessageDeltaV1{PartID: "text-1", Delta: stamped()})})
			return err
		})
		return report{P50: got.p50, P99: got.p99, Done: got.done}, err
	case "tools": // has N slow tool calls at work until it rests
		if s.work, err = newWorkshop(ctx, s.p); err != nil {
			return r, err
		}
		return r, s.work.load(ctx, o.N)
	case "rest":
		return r, s.rest(ctx)
	case "calls": // N runs call tools that do nothing, Calls in a turn
		w, err := newWorkshop(ctx, s.p)
		if err != nil {
			return r, err
		}
		r, err = w.calls(ctx, o.N, o.Calls, o.For)
		return r, errors.Join(err, w.stop())
	case "pay": // holds and settles in each run
		return s.pay(ctx, o)
	case "stat":
		r, err = stat()
		r.Asked, r.Logs = s.p.asked.all.Load(), s.p.asked.logs.Load()
		return r, err
	default:
		return r, fmt.Errorf("a serving process does not know %q", o.Do)
	}
}

// grow appends n deltas to a run.
func grow(ctx context.Context, p *process, to db.Run, n int) error {
	delta := event.MessageDeltaV1{PartID: "text-1", Delta: deltaText}
	for n > 0 {
		events := make([]event.Event, min(n, 500))
		for i := range events {
			events[i] = delta
		}
		n -= len(events)
		_, err := p.log.Commit(ctx, runlog.Unit{RunKey: to.RunKey, RunID: to.RunID, Trace: telemetry.TraceFrom(ctx), Decide: runlog.Append(events...)})
		if err != nil {
			return err
		}
	}
	return nil
}

// memory is the plain case of streams: deltas go from memory to the readers and
// are stored nowhere.
type memory struct {
	mu   sync.Mutex
	runs []string
	subs map[string]map[chan []byte]bool
}

func serveMemory(ctx context.Context, in io.Reader, out io.Writer) error {
	m := &memory{subs: map[string]map[chan []byte]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /internal/v1/runs/{id}/stream", m.stream)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	err = obey(ctx, in, out, report{URL: "http://" + l.Addr().String()}, m.do)
	if err := errors.Join(err, server.Close()); err != nil {
		return err
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (m *memory) do(ctx context.Context, o order) (r report, err error) {
	switch o.Do {
	case "runs":
		for range o.N {
			r.Runs = append(r.Runs, uuid.NewString())
		}
		m.runs = r.Runs
		return r, nil
	case "pace":
		got, err := paced(ctx, len(m.runs), o.Rate, o.For, func(_ context.Context, client int) error {
			m.send(m.runs[client], []byte(`data: {"type":"text-delta","id":"text-1","delta":"`+stamped()+"\"}\nid: 1\n\n"))
			return nil
		})
		return report{Done: got.done}, err
	case "stat":
		return stat()
	default:
		return r, fmt.Errorf("a memory server does not know %q", o.Do)
	}
}

func (m *memory) send(run string, block []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.subs[run] {
		select {
		case c <- block:
		default: // a reader that is so far behind misses it
		}
	}
}

func (m *memory) stream(w http.ResponseWriter, r *http.Request) {
	id, blocks := r.PathValue("id"), make(chan []byte, 64)
	m.mu.Lock()
	if m.subs[id] == nil {
		m.subs[id] = map[chan []byte]bool{}
	}
	m.subs[id][blocks] = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.subs[id], blocks)
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	for block := []byte(": stream-open\n\n"); ; {
		if _, err := w.Write(block); err != nil {
			return // the reader has gone
		}
		if err := flush.Flush(); err != nil {
			return
		}
		select {
		case block = <-blocks:
		case <-r.Context().Done():
			return
		}
	}
}
