package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// cell is one case that is measured in every round.
type cell struct {
	name    string
	measure func(ctx context.Context, d time.Duration) (result, error)
	// prepare, when set, is called once, before the first round.
	prepare func(ctx context.Context) error
	// most is in how many rounds a cell is measured that takes much longer than
	// its time; 0 is all.
	most int
}

// result is what one measurement gave.
type result struct {
	perSecond float64
	p50, p99  time.Duration
	done      int                // operations, by weight
	values    map[string]float64 // what else was measured, by name
}

// with adds a named value.
func (r result) with(name string, v float64) result {
	if r.values == nil {
		r.values = map[string]float64{}
	}
	r.values[name] = v
	return r
}

// load has so many clients do work again and again for d, each as soon as it
// has its answer, and counts what they finish. An operation counts for weight.
func load(ctx context.Context, clients int, d time.Duration, weight int, work func(ctx context.Context, client int) error) (result, error) {
	took := make([][]time.Duration, clients)
	errs := make([]error, clients)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	var begun time.Time
	for c := range clients {
		wg.Go(func() {
			<-begin
			for last := begun; last.Sub(begun) < d; {
				if errs[c] = work(ctx, c); errs[c] != nil {
					return
				}
				now := time.Now()
				took[c] = append(took[c], now.Sub(last))
				last = now
			}
		})
	}
	begun = time.Now()
	close(begin)
	wg.Wait()
	return summary(slices.Concat(took...), time.Since(begun), weight), errors.Join(errs...)
}

func summary(took []time.Duration, all time.Duration, weight int) result {
	slices.Sort(took)
	return result{
		perSecond: float64(len(took)*weight) / all.Seconds(), done: len(took) * weight,
		p50: quantile(took, .5), p99: quantile(took, .99),
	}
}

// quantile is the nearest-rank quantile of sorted values, 0 of none.
func quantile[T any](sorted []T, q float64) (v T) {
	if len(sorted) == 0 {
		return v
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// paced has so many clients begin perSecond operations together, evenly, for d.
// What is measured is each operation from its call on.
func paced(ctx context.Context, clients int, perSecond float64, d time.Duration, work func(ctx context.Context, client int) error) (result, error) {
	took := make([][]time.Duration, clients)
	errs := make([]error, clients)
	each := time.Duration(float64(clients) / perSecond * float64(time.Second))
	begun := time.Now()
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			next := begun.Add(each * time.Duration(c) / time.Duration(clients))
			for ; next.Sub(begun) < d; next = next.Add(each) {
				if err := until(ctx, next); err != nil {
					errs[c] = err
					return
				}
				at := time.Now()
				if errs[c] = work(ctx, c); errs[c] != nil {
					return
				}
				took[c] = append(took[c], time.Since(at))
			}
		})
	}
	wg.Wait()
	return summary(slices.Concat(took...), time.Since(begun), 1), errors.Join(errs...)
}

// until waits for a moment.
func until(ctx context.Context, at time.Time) error {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
