package tool

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
)

// The states of a breaker, as metrics and the API name them.
var breakerStates = map[gobreaker.State]string{
	gobreaker.StateClosed: "closed", gobreaker.StateHalfOpen: "half_open", gobreaker.StateOpen: "open",
}

// breakers are the circuit breakers of the providers. They are this process's
// own: another process finds out by itself.
type breakers struct {
	failures int           // in a row
	rest     time.Duration // until one call is let through
	state    *prometheus.GaugeVec

	mu sync.Mutex
	of map[string]*gobreaker.CircuitBreaker[Result]
}

// A provider is also given up on when half of at least so many calls of the last
// minute failed.
const (
	rateWindow = time.Minute
	rateBucket = 10 * time.Second
	rateCalls  = 20
)

func (b *breakers) get(provider string) *gobreaker.CircuitBreaker[Result] {
	b.mu.Lock()
	defer b.mu.Unlock()
	if cb := b.of[provider]; cb != nil {
		return cb
	}
	cb := gobreaker.NewCircuitBreaker[Result](gobreaker.Settings{
		Name: provider, MaxRequests: 1, Interval: rateWindow, BucketPeriod: rateBucket, Timeout: b.rest,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			judged := c.TotalSuccesses + c.TotalFailures
			return int(c.ConsecutiveFailures) >= b.failures || judged >= rateCalls && 2*c.TotalFailures >= judged
		},
		// What is no fault of the provider's says nothing about it: its refusal of
		// one caller's request, our own refusals, a cancel.
		IsExcluded: func(err error) bool {
			var e *Error
			return errors.As(err, &e) && !e.ProviderFault
		},
		OnStateChange: func(name string, _, to gobreaker.State) {
			b.show(name, to)
			slog.Warn("a tool provider's circuit breaker changed", "provider", name, "state", breakerStates[to])
		},
	})
	b.of[provider] = cb
	b.show(provider, gobreaker.StateClosed)
	return cb
}

func (b *breakers) show(provider string, now gobreaker.State) {
	for s, name := range breakerStates {
		v := 0.
		if s == now {
			v = 1
		}
		b.state.WithLabelValues(provider, name).Set(v)
	}
}

// call asks a provider, unless its breaker is open: then nothing goes out.
func (b *breakers) call(provider string, do func() (Result, *Error)) (Result, *Error) {
	res, err := b.get(provider).Execute(func() (Result, error) {
		res, failure := do()
		if failure != nil {
			return res, failure
		}
		return res, nil
	})
	var failure *Error
	switch {
	case err == nil:
		return res, nil
	case errors.As(err, &failure):
		return res, failure
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		return Result{}, &Error{Class: ClassCircuitOpen, ReasonCode: reasonCircuit,
			Message: "The provider has failed too often; it is not asked for a while."}
	default:
		return Result{}, &Error{Class: ClassFailed, Message: err.Error()}
	}
}

// states are the states by provider.
func (b *breakers) states() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	states := make(map[string]string, len(b.of))
	for provider, cb := range b.of {
		states[provider] = breakerStates[cb.State()]
	}
	return states
}
