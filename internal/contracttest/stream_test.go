package contracttest_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
)

// A client takes a clean end for the end of the message, so a stream that has
// to end before its [DONE] is seen to be broken, also where the body ends with
// the connection.
func TestAStreamThatEndsEarlyIsBroken(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/1.0"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, contracttest.Options{})
			s := &siege{world: w}
			c := s.dial(t)
			q := contracttest.Request{Target: "/internal/v1/runs/" + w.live + "/stream"}
			c.send(t, strings.Replace(s.head(t, q), "HTTP/1.1", protocol, 1)+"\r\n")
			resp, err := http.ReadResponse(c.read, nil)
			require.NoError(t, err)
			var read []byte
			for buffer := make([]byte, 512); !bytes.Contains(read, []byte("id: 5\n")); {
				n, err := resp.Body.Read(buffer)
				require.NoError(t, err)
				read = append(read, buffer[:n]...)
			}
			w.Drain()
			_, err = io.ReadAll(resp.Body)
			require.Error(t, err, "%s: the stream ends as if it were whole", protocol)
			_ = resp.Body.Close() // it is broken, as it should be

			_, err = w.Send(t, q)
			require.Error(t, err, "a client that follows comes back after a cut and gives up on an error")
		})
	}
}
