package mcp_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/tool/mcp"
)

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
