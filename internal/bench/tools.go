package main

import (
	"context"
	"errors"
	"time"
)

// loaded is a load of streams while the serving process has slow tool calls at
// work.
func (s *subjects) loaded(name string, f fan) cell {
	var k *kit
	return cell{name: name, prepare: func(ctx context.Context) (err error) {
		k, err = s.kit(ctx)
		return err
	}, measure: func(_ context.Context, d time.Duration) (r result, err error) {
		if _, err := k.ours.ask(order{Do: "tools", N: s.o.size.tools}); err != nil {
			return r, err
		}
		defer func() {
			_, restErr := k.ours.ask(order{Do: "rest"})
			err = errors.Join(err, restErr)
		}()
		return flow(k, k.ours, k.ours, f, d)
	}}
}

// called is runs that call tools which do nothing, so many in a turn.
func (s *subjects) called(name string, runs, calls int) cell {
	var k *kit
	return cell{name: name, prepare: func(ctx context.Context) (err error) {
		k, err = s.kit(ctx)
		return err
	}, measure: func(_ context.Context, d time.Duration) (result, error) {
		r, err := k.ours.ask(order{Do: "calls", N: runs, Calls: calls, For: d})
		return result{perSecond: r.Rate, done: r.Done, p50: r.P50, p99: r.P99}, err
	}}
}

func toolRows() []row {
	delayed := func(what string, figure func(result) float64, w want) row {
		return row{what: "append to stream, 200 streams of 50 runs, " + what + ", 500 tool calls of 1 s at work, against none [19]",
			ours: "fan 200 with tools", plain: "fan 200 without", unit: inMillis, figure: figure, want: w}
	}
	return []row{
		delayed("4,000 deltas/s, p50", median, want{}),
		delayed("4,000 deltas/s, p99", tail, want{ratio, 1.5, 1.2}),
		{what: "a tool call that does nothing, from its request to its end, 1 run, p50, against a commit [20]", ours: "tool 1", plain: "plain 1", unit: inMillis, figure: median},
		{what: "tool calls that do nothing, 32 runs, 8 in a turn, against single commits [20]", ours: "tools 32", plain: "plain 32", unit: perSecond, figure: rate},
		{what: "tool calls that do nothing, 32 runs, 8 in a turn, from request to end, p50 [20]", ours: "tools 32", plain: "plain 32", unit: inMillis, figure: median},
	}
}

func (s *subjects) toolCells() []cell {
	f := fan{runs: 50, streams: min(200, s.o.size.streams), rate: 1000}
	return []cell{s.fanned("fan 200 without", f, here), s.loaded("fan 200 with tools", f), s.called("tool 1", 1, 1), s.called("tools 32", 32, 8)}
}
