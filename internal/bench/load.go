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
}

// result is what one measurement gave.
type result struct {
	perSecond float64
	p50, p99  time.Duration
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
		perSecond: float64(len(took)*weight) / all.Seconds(),
		p50:       quantile(took, .5), p99: quantile(took, .99),
	}
}

// quantile is the nearest-rank quantile of sorted values, 0 of none.
func quantile[T any](sorted []T, q float64) (v T) {
	if len(sorted) == 0 {
		return v
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
