package auth_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// Of many that ask at once in two processes, some with the same nonce, exactly
// one hears of each nonce that it is new.
func TestNoncesThatAreRememberedTogetherAreGoodOnce(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	stores := []auth.NonceStore{auth.NewNoncesTogether(pool), auth.NewNoncesTogether(pool)}
	const nonces, each = 40, 8
	var fresh [nonces]atomic.Int64
	var all sync.WaitGroup
	for i := range nonces * each {
		all.Go(func() {
			isNew, err := stores[i%2].Remember(t.Context(), hashOf(fmt.Sprint(i/each)), time.Now().Add(time.Minute))
			if err == nil && isNew {
				fresh[i/each].Add(1)
			} else if err != nil {
				fresh[i/each].Add(1000)
			}
		})
	}
	all.Wait()
	for i := range fresh {
		require.EqualValues(t, 1, fresh[i].Load(), "nonce %d", i)
	}
}

// Whoever gives up waiting, the others are answered.
func TestARequestThatLeavesTakesNoOtherNonceWithIt(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	store := auth.NewNoncesTogether(pool)
	ctx, leave := context.WithCancel(t.Context())
	leave()
	var all sync.WaitGroup
	var fresh atomic.Int64
	for i := range 20 {
		all.Go(func() {
			of := t.Context()
			if i%2 == 0 {
				of = ctx
			}
			if isNew, err := store.Remember(of, hashOf(fmt.Sprint(i)), time.Now().Add(time.Minute)); err == nil && isNew && i%2 == 1 {
				fresh.Add(1)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 10, fresh.Load())
}

// A nonce that is past its time is never new, alone or together.
func TestAnExpiredNonceIsNotNew(t *testing.T) {
	t.Parallel()
	store := auth.NewNoncesTogether(dbtest.New(t))
	var all sync.WaitGroup
	var fresh atomic.Int64
	for i := range 20 {
		all.Go(func() {
			if isNew, err := store.Remember(t.Context(), hashOf(fmt.Sprint(i)), time.Now().Add(-time.Minute)); err != nil || isNew {
				fresh.Add(1)
			}
		})
	}
	all.Wait()
	require.Zero(t, fresh.Load())
}
