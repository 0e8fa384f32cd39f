package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

const (
	slowCalls = 10          // of a load's run at once
	slowCall  = time.Second // takes each
)

// workshop is an executor beside a process's streams, with a model that asks for
// tools and tools that do next to nothing.
type workshop struct {
	p        *process
	executor *executor.Executor

	working atomic.Int64 // slow calls
	resting atomic.Bool  // a load is to end
	made    atomic.Int64 // calls of all kinds, which tells them apart
	mu      sync.Mutex
	turns   map[string]chan struct{} // by the frame's text, closed when its calls have ended

	runs []db.Run // of the load
	stop func() error
}

func newWorkshop(ctx context.Context, p *process) (*workshop, error) {
	w := &workshop{p: p, turns: map[string]chan struct{}{}}
	catalog, err := tool.NewCatalog(benchTool{"bench.wait", w.wait}, benchTool{"bench.nothing", w.nothing})
	if err != nil {
		return nil, err
	}
	// What other cells have left unanswered is not this one's work, and their runs
	// must not end.
	if _, err := p.pool.Exec(ctx, "UPDATE runtime.runs SET runnable = false WHERE runnable"); err != nil {
		return nil, err
	}
	metrics := telemetry.NewMetrics()
	config := executor.DefaultConfig()
	config.Limits = run.Limits{MaxSteps: 1 << 20, MaxModelCalls: 1 << 20} // a load goes on as long as it is wanted
	// Limits that keep tools of one kind or owner back are not what is measured.
	runner := tool.NewRunner(tool.Config{Global: 512, PerOwner: 512, PerProvider: 512}, catalog, metrics)
	w.executor = executor.New(config, p.pool, p.watch, p.leases, predict.NewCaller(w, metrics), executor.Tools{Catalog: catalog, Runner: runner}, metrics)
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- w.executor.Run(running) }()
	w.stop = func() error { stop(); return <-ended }
	return w, nil
}

// benchTool does what its function does.
type benchTool struct {
	name string
	do   func(context.Context) error
}

// Spec says that a call may be made again.
func (b benchTool) Spec() tool.Spec {
	return tool.Spec{
		Name: b.name, Description: "Measures.", Kind: tool.Runtime, Provider: "bench", Boundary: tool.SafeRetry, Timeout: time.Minute,
		Input: json.RawMessage(`{"type":"object","properties":{"n":{"type":"integer"}}}`),
	}
}

// Run answers with its input.
func (b benchTool) Run(ctx context.Context, call tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
	return tool.Result{Output: call.Input}, b.do(ctx)
}

func (w *workshop) nothing(context.Context) error { return nil }

func (w *workshop) wait(ctx context.Context) error {
	w.working.Add(1)
	defer w.working.Add(-1)
	return until(ctx, time.Now().Add(slowCall))
}

// Info names the model that asks.
func (w *workshop) Info() model.Info { return model.Info{Provider: "bench", Model: "asks"} }

// Stream asks for the tools that the newest frame's text names, "8 bench.nothing
// …", once; for the slow ones of a load again and again.
func (w *workshop) Stream(_ context.Context, req model.Request, emit func(model.Event) error) (model.Result, error) {
	r := model.Result{Provider: "bench", RequestedModel: "asks", ServedModel: "asks", Attempts: 1, FinishReason: model.FinishStop, Usage: model.Usage{Told: true}}
	var text string
	results := 0
	for _, m := range req.Messages {
		switch m.Role {
		case model.RoleUser:
			text, results = m.Content, 0
		case model.RoleTool:
			results++
		}
	}
	count, name, _ := strings.Cut(text, " ")
	name, _, _ = strings.Cut(name, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return r, &model.Error{Class: model.InvalidRequest, Message: "the frame names no tools"}
	}
	load := name == "bench.wait"
	if results > 0 && (!load || w.resting.Load()) {
		w.over(text)
		r.Text = "Done."
		return r, emit(model.Event{Kind: model.TextDelta, Delta: r.Text})
	}
	r.FinishReason = model.FinishToolCalls
	for i := range n {
		c := model.ToolCall{ID: fmt.Sprint(i), Name: strings.ReplaceAll(name, ".", "_"), Arguments: json.RawMessage(fmt.Sprintf(`{"n":%d}`, w.made.Add(1)))}
		r.ToolCalls = append(r.ToolCalls, c)
		if err := emit(model.Event{Kind: model.CallsTool, ToolCall: &c}); err != nil {
			return r, err
		}
	}
	return r, nil
}

// turn has a run call n tools that do nothing, and returns when all have ended
// and the model is shown what they came to.
func (w *workshop) turn(ctx context.Context, r db.Run, n int) error {
	id := uuid.NewString()
	text := fmt.Sprintf("%d bench.nothing %s", n, id)
	over := make(chan struct{})
	w.mu.Lock()
	w.turns[text] = over
	w.mu.Unlock()
	if err := w.say(ctx, r, id, text); err != nil {
		return err
	}
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(30 * time.Second):
		return errors.New("a turn does not end")
	}
}

func (w *workshop) over(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if over, waited := w.turns[text]; waited {
		close(over)
		delete(w.turns, text)
	}
}

func (w *workshop) say(ctx context.Context, r db.Run, id, text string) error {
	payload, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		return err
	}
	_, err = run.AppendFrame(ctx, w.p.pool, w.p.log, r, run.Frame{FrameID: id, Type: "user_message", Payload: payload})
	return err
}

// open starts a run that may call every tool.
func (w *workshop) open(ctx context.Context, keepOpen bool) (db.Run, error) {
	user := userID
	r, _, err := run.Start(ctx, w.p.pool, run.Envelope{
		RunID: uuid.NewString(), ThreadID: uuid.NewString(), UserID: &user, AuthenticatedSession: true, KeepOpen: keepOpen,
		ToolPolicy: json.RawMessage(`{"allow":["*"]}`), Limits: &run.Limits{MaxParallelTools: slowCalls},
	})
	return r, err
}

// load has so many slow calls at work from now on, whose beginnings are spread
// over the time that one takes.
func (w *workshop) load(ctx context.Context, calls int) error {
	runs := max(1, calls/slowCalls)
	begun := time.Now()
	for i := range runs {
		if err := until(ctx, begun.Add(slowCall*time.Duration(i)/time.Duration(runs))); err != nil {
			return err
		}
		r, err := w.open(ctx, false)
		if err != nil {
			return err
		}
		w.runs = append(w.runs, r)
		if err := w.say(ctx, r, "load", fmt.Sprintf("%d bench.wait", slowCalls)); err != nil {
			return err
		}
	}
	return w.becomes(ctx, func() bool { return w.working.Load() >= int64(runs*slowCalls*9/10) })
}

// rest lets the load's runs end.
func (w *workshop) rest(ctx context.Context) error {
	w.resting.Store(true)
	return w.becomes(ctx, func() bool { return w.working.Load() == 0 })
}

func (w *workshop) becomes(ctx context.Context, holds func() bool) error {
	for late := time.Now().Add(30 * time.Second); !holds(); {
		if time.Now().After(late) {
			return fmt.Errorf("%d slow calls are at work", w.working.Load())
		}
		if err := until(ctx, time.Now().Add(5*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// calls has so many runs call n tools again and again for d.
func (w *workshop) calls(ctx context.Context, runs, n int, d time.Duration) (report, error) {
	var all []db.Run
	var keys []uuid.UUID
	for range runs {
		r, err := w.open(ctx, true)
		if err != nil {
			return report{}, err
		}
		all, keys = append(all, r), append(keys, r.RunKey)
	}
	got, err := load(ctx, runs, d, n, func(ctx context.Context, client int) error { return w.turn(ctx, all[client], n) })
	if err != nil {
		return report{}, err
	}
	r := report{Done: got.done, Rate: got.perSecond}
	// From the moment that the log has the call to the moment that it has its end.
	var p50, p99 float64
	err = w.p.pool.QueryRow(ctx, `SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY took), percentile_disc(0.99) WITHIN GROUP (ORDER BY took) FROM (
		SELECT (extract(epoch FROM max(inserted_at) - min(inserted_at)) * 1e6)::float8 AS took FROM run_log
		WHERE run_key = ANY($1) AND event_type IN ('tool.requested', 'tool.finished')
		GROUP BY run_key, payload->>'tool_call_id' HAVING count(*) = 2) calls`, keys).Scan(&p50, &p99)
	r.P50, r.P99 = time.Duration(p50)*time.Microsecond, time.Duration(p99)*time.Microsecond
	return r, err
}
