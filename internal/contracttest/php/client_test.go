package php_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAPartArrivesBeforeTheNextIsSent: the upstream sends a block only when PHP
// has told of the one before it.
func TestAPartArrivesBeforeTheNextIsSent(t *testing.T) {
	t.Parallel()
	told := make(chan struct{})
	u := newUpstream(t, func(_ int, q request) {
		q.open()
		parts := 0
		for _, b := range blocks {
			if strings.HasPrefix(b, "data: ") {
				if parts++; parts > 1 {
					select {
					case <-told:
					case <-q.r.Context().Done():
						return
					}
				}
			}
			q.send(b)
		}
	})
	r := read(t, u.URL)
	parts := 0
	for _, b := range blocks {
		if !strings.HasPrefix(b, "data: ") {
			continue
		}
		if parts++; parts > 1 {
			allow(t, told)
		}
		l := r.next(t)
		require.NotNil(t, l.Part, "%+v", l)
		require.Contains(t, b, fmt.Sprintf("id: %d\n", *l.Part.ID))
	}
	_, end := r.rest(t)
	require.Equal(t, 8, *end.Cursor)
	require.Len(t, u.requests(), 1)
}

// TestACutAnywhereLosesAndDoublesNothing: one PHP process reads a stream for
// every byte at which the first connection can break off, by an abort and by a
// clean end.
func TestACutAnywhereLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	for _, ending := range []string{"abort", "end"} {
		t.Run(ending, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, func(_ int, q request) {
				name, _, _ := strings.Cut(strings.TrimPrefix(q.r.URL.Path, "/internal/v1/runs/cut-"), "/")
				cut, err := strconv.Atoi(name)
				if err != nil {
					q.fail(http.StatusNotFound, "run_not_found", "{}")
					return
				}
				if id := q.lastEventID(); id != "" {
					q.open()
					q.send(after(id))
					return
				}
				q.open()
				q.send(whole[:cut])
				if ending == "abort" {
					q.abort()
				}
			})
			r := read(t, u.URL, "CUTS="+strconv.Itoa(len(whole)), "MODE=bytes")
			for cut := range len(whole) {
				var bytes strings.Builder
				for {
					l := r.next(t)
					if l.End {
						require.Equal(t, 8, *l.Cursor)
						break
					}
					require.Empty(t, l.Error, "cut at %d", cut)
					bytes.WriteString(l.Bytes)
				}
				require.Equal(t, shown(whole), shown(bytes.String()), "cut at %d", cut)
			}
			_, end := r.rest(t)
			require.True(t, end.End)
		})
	}
}

// shown is what of a stream counts: its blocks with an id, in order.
func shown(stream string) []string {
	var all []string
	for b := range strings.SplitSeq(stream, "\n\n") {
		if strings.Contains("\n"+b, "\nid: ") {
			all = append(all, b)
		}
	}
	return all
}

func TestNothingToResume(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(_ int, q request) { q.w.WriteHeader(http.StatusNoContent) })
	told, _ := read(t, u.URL, "CURSOR=8").rest(t)
	require.Equal(t, []line{{Empty: true}}, told)
	require.Equal(t, "cursor=8", u.requests()[0].URL.RawQuery)
}

func TestAPlaceThatIsGone(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(_ int, q request) {
		q.fail(http.StatusGone, "stale_cursor", `{"floor":40,"head":90,"restartCursor":40,"snapshotUrl":"/internal/v1/runs/r1"}`)
	})
	_, end := read(t, u.URL).rest(t)
	require.Equal(t, `OpenAgents\Runtime\Exception\StaleCursorException`, end.Error)
	require.Equal(t, []any{"stale_cursor", 410, 40, 40, "/internal/v1/runs/r1"}, []any{end.Code, end.Status, end.Floor, end.Restart, end.URL})
	require.Len(t, u.requests(), 1)
}

// TestAServiceThatIsAwayForAMoment: 503 before the stream and in the middle of it.
func TestAServiceThatIsAwayForAMoment(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(n int, q request) {
		switch n {
		case 1, 3, 4:
			q.w.Header().Set("Retry-After", "0")
			q.fail(http.StatusServiceUnavailable, "unavailable", "{}")
		case 2:
			q.open()
			q.send(strings.Join(blocks[:4], ""))
			q.abort()
		default:
			q.open()
			q.send(after(q.lastEventID()))
		}
	})
	told, end := read(t, u.URL).rest(t)
	require.True(t, end.End)
	require.Len(t, told, 7)
	require.Len(t, u.requests(), 5)
	require.Equal(t, "3", u.requests()[4].Header.Get("Last-Event-ID"))
}

// TestASilentConnectionIsGivenUp: no heartbeat came within the idle timeout.
func TestASilentConnectionIsGivenUp(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(n int, q request) {
		q.open()
		if n == 1 {
			q.send(blocks[0] + blocks[1])
			<-q.r.Context().Done()
			return
		}
		q.send(after(q.lastEventID()))
	})
	told, end := read(t, u.URL, "IDLE_MS=1000").rest(t)
	require.True(t, end.End)
	require.Len(t, told, 7)
	require.Len(t, u.requests(), 2)
}

// TestNobodyListens: the first request is sent at once, so that this fails
// before a response begins.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(int, request) {})
	u.Close()
	told, end := read(t, u.URL).rest(t)
	require.Empty(t, told)
	require.Equal(t, `OpenAgents\Runtime\Exception\TransportException`, end.Error)
}

// TestAServiceThatDoesNotComeBack ends with the place to go on from.
func TestAServiceThatDoesNotComeBack(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(n int, q request) {
		if n == 1 {
			q.open()
			q.send(strings.Join(blocks[:5], ""))
		}
		q.abort()
	})
	told, end := read(t, u.URL).rest(t)
	require.Len(t, told, 3)
	require.Equal(t, `OpenAgents\Runtime\Exception\StreamInterruptedException`, end.Error)
	require.Equal(t, 4, *end.Cursor)
}

// TestALargePartIsReadAtOnce: reading byte by byte would take minutes.
func TestALargePartIsReadAtOnce(t *testing.T) {
	t.Parallel()
	delta := strings.Repeat("ü", 1<<20)
	u := newUpstream(t, func(_ int, q request) {
		q.open()
		q.send(`data: {"type":"text-delta","id":"t","delta":"` + delta + `"}` + "\nid: 1\n\ndata: [DONE]\nid: 2\n\n")
	})
	told, end := read(t, u.URL, "QUIET=1").rest(t)
	require.Len(t, told, 2)
	require.Equal(t, float64(len(delta)), told[0].Part.Data["bytes"])
	require.Equal(t, 2, *end.Cursor)
}
