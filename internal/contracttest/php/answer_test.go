package php_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAnAnswerThatIsCutAnywhereIsAskedForAgain: an operation that is idempotent
// is asked again when its answer breaks off, at whichever byte, by a clean end
// or a reset.
func TestAnAnswerThatIsCutAnywhereIsAskedForAgain(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nX-Request-Id: r1\r\nContent-Length: 49\r\n\r\n" +
		`{"status":"ok","service":"runtime","version":"1"}`
	for _, reset := range []bool{false, true} {
		t.Run("reset="+strconv.FormatBool(reset), func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			var served sync.WaitGroup
			t.Cleanup(func() {
				listener.Close()
				served.Wait()
			})
			served.Go(func() {
				for n := 0; ; n++ {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
						if n%2 == 0 {
							c.Write([]byte(answer[:n/2]))
							if reset {
								c.(*net.TCPConn).SetLinger(0)
							}
						} else {
							c.Write([]byte(answer))
						}
					}
					c.Close()
				}
			})
			cmd := command(t, within(t), []string{
				"BASE_URL=http://" + listener.Addr().String(), "SECRET=" + secret, "TIMES=" + strconv.Itoa(len(answer)),
			}, filepath.Join("testdata", "health.php"))
			var log bytes.Buffer
			cmd.Stderr = &log
			out, err := cmd.Output()
			require.NoError(t, err, "%s\n%s", out, log.String())
			lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
			require.Len(t, lines, len(answer))
			for cut, l := range lines {
				var told struct {
					Version  string
					Attempts int
				}
				require.NoError(t, json.Unmarshal(l, &told))
				require.Equal(t, "1", told.Version)
				require.Equal(t, 2, told.Attempts, "cut at %d", cut)
			}
		})
	}
}
