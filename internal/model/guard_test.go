package model_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

// Whoever may call no more when the request is to be written sends nothing.
func TestAGuardedRequestIsNotSent(t *testing.T) {
	t.Parallel()
	e := serve(t, stream(text("hi"), stop("stop"), usageChunk))
	m, _ := e.dial(t, nil)
	asked := 0
	ctx := model.WithGuard(t.Context(), func() error {
		asked++
		return errors.New("the lease is lost")
	})
	_, err := m.Stream(ctx, ask(), new(listen).emit)
	require.Error(t, err)
	require.Positive(t, asked)
	require.Zero(t, e.requests(), "the endpoint has read a whole request")

	ctx = model.WithGuard(t.Context(), func() error { return nil })
	_, err = m.Stream(ctx, ask(), new(listen).emit)
	require.NoError(t, err)
	require.Equal(t, 1, e.requests())
}
