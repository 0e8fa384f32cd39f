package contracttest_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
)

// A stream goes on after its request's handler. Its access line comes at its
// end, once, with the trace, the caller and all bytes.
func TestAStreamsAccessLineComesAtItsEnd(t *testing.T) {
	t.Parallel()
	s := besiege(t, "line", contracttest.Options{})
	c := s.dial(t)
	c.send(t, s.head(t, contracttest.Request{Target: "/internal/v1/runs/" + s.live + "/stream"})+
		"x-request-id: req-of-a-stream\r\n\r\n")
	res, err := http.ReadResponse(c.read, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "req-of-a-stream", res.Header.Get("x-request-id"))
	body, bytes := bufio.NewReader(res.Body), 0
	for seen := false; !seen; {
		text, err := body.ReadString('\n')
		require.NoError(t, err)
		bytes += len(text)
		seen = strings.HasPrefix(text, "id: ")
	}
	lines := func() (all []map[string]any) {
		for text := range strings.Lines(s.Log.String()) {
			var line map[string]any
			require.NoError(t, json.Unmarshal([]byte(text), &line))
			if line["msg"] == "request" && line["operation"] == "streamRun" {
				all = append(all, line)
			}
		}
		return all
	}
	require.Empty(t, lines(), "the stream goes on")
	require.NoError(t, c.Close())
	require.Eventually(t, func() bool { return len(lines()) > 0 }, 20*time.Second, 5*time.Millisecond)
	require.Len(t, lines(), 1)
	line := lines()[0]
	require.EqualValues(t, 200, line["status"])
	require.GreaterOrEqual(t, line["bytes"], float64(bytes))
	require.NotEmpty(t, line["actor"])
	require.NotEmpty(t, line["latency_ms"], fmt.Sprint(line))
}
