package mcp_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/tool/mcp"
)

// slow is a log that takes the first line of a child, its pid, when the child is gone.
type slow struct {
	slog.Handler
	t testing.TB
}

func (s slow) Handle(ctx context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if pid, err := strconv.Atoi(a.Value.String()); err == nil && a.Key == "line" {
			eventually(s.t, "its end", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
		}
		return true
	})
	return s.Handler.Handle(ctx, r)
}

func (s slow) WithAttrs(attrs []slog.Attr) slog.Handler { return slow{s.Handler.WithAttrs(attrs), s.t} }

// Why a child ended stands in the last line of its log, which is read to its end.
func TestTheLastWordsOfAChild(t *testing.T) {
	t.Parallel()
	log := &lines{}
	all := mcp.New(mcp.Config{Servers: []mcp.Server{child(t, "words")}, Logger: slog.New(slow{slog.NewJSONHandler(log, nil), t})})
	_, err := all.Once(t.Context())
	require.Error(t, err)
	all.Close()
	require.Equal(t, 22, strings.Count(log.String(), "an MCP server logs"))
	require.Contains(t, log.String(), "the last words")
}

// A child that ends as soon as it has answered has answered.
func TestAnAnswerBeforeTheEnd(t *testing.T) {
	t.Parallel()
	for range 40 {
		r := listed(t, mcp.Config{}, child(t, "once"))
		out, e := r.call(t, "peer.plain", `{}`)
		require.Nil(t, e)
		require.JSONEq(t, `{"content":[{"type":"text","text":"done"}]}`, out)
		r.Close()
	}
}
