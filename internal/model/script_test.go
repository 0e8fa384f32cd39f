package model_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

func TestAScriptPlaysItsTurnsInOrder(t *testing.T) {
	t.Parallel()
	down := &model.Error{Class: model.Unavailable, Retryable: true, Message: "down"}
	call := model.ToolCall{ID: "c", Name: "clock", Arguments: []byte(`{}`)}
	s := model.NewScript(model.Say("a", "b"), model.Fail(down), model.Turn{Events: []model.Event{{Kind: model.CallsTool, ToolCall: &call}}})

	var l listen
	res, err := s.Stream(t.Context(), ask(), l.emit)
	require.NoError(t, err)
	require.Equal(t, "ab", res.Text)
	require.Equal(t, model.FinishStop, res.FinishReason)
	require.Equal(t, []string{"a", "b"}, l.deltas(model.TextDelta))

	_, err = s.Stream(t.Context(), ask(), l.emit)
	require.ErrorIs(t, err, down)

	res, err = s.Stream(t.Context(), ask(), l.emit)
	require.NoError(t, err)
	require.Equal(t, model.FinishToolCalls, res.FinishReason)
	require.Equal(t, []model.ToolCall{call}, res.ToolCalls)

	_, err = s.Stream(t.Context(), ask(), l.emit)
	failure(t, err, model.InvalidRequest)
	require.Equal(t, 4, s.Calls())
	require.Equal(t, ask(), s.Requests()[3])
}

func TestAScriptWaitsUntilToldOrCanceled(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	s := model.NewScript(model.Turn{Wait: gate, Events: model.Say("a").Events}, model.Turn{Events: model.Say("a").Events, Hold: make(chan struct{})})

	ended := make(chan error, 1)
	go func() {
		_, err := s.Stream(t.Context(), ask(), func(model.Event) error { return nil })
		ended <- err
	}()
	close(gate)
	require.NoError(t, <-ended)

	ctx, cancel := context.WithCancel(t.Context())
	res, err := s.Stream(ctx, ask(), func(model.Event) error { cancel(); return nil })
	failure(t, err, model.Canceled)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "a", res.Text)
}

func TestObservedReportsEachCall(t *testing.T) {
	t.Parallel()
	var seen []model.Observation
	full := errors.New("full")
	m := model.Observed{
		Model:   model.NewScript(model.Say("a"), model.Fail(&model.Error{Class: model.Auth}), model.Say("a")),
		Observe: func(o model.Observation) { seen = append(seen, o) },
	}
	_, err := m.Stream(t.Context(), ask(), new(listen).emit)
	require.NoError(t, err)
	_, err = m.Stream(t.Context(), ask(), new(listen).emit)
	require.Error(t, err)
	_, err = m.Stream(t.Context(), ask(), func(model.Event) error { return full })
	require.ErrorIs(t, err, full)
	require.Len(t, seen, 3)
	require.Equal(t, "ok", seen[0].Outcome)
	require.Positive(t, seen[0].FirstDelta)
	require.Equal(t, "script", seen[0].Provider)
	require.Equal(t, "auth", seen[1].Outcome)
	require.Zero(t, seen[1].FirstDelta)
	require.Equal(t, "emit", seen[2].Outcome)
}
