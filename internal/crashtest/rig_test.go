package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// echo listens on a unix socket and sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return path
}

func TestALineIsCutAndMendedAndFallsSilent(t *testing.T) {
	t.Parallel()
	r, err := rig.NewRelay()
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	r.Point(echo(t))
	l, err := newLine(t.Name(), r.Address())
	require.NoError(t, err)
	t.Cleanup(l.close)
	address := l.address()
	dial := func() net.Conn {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	says := func(c net.Conn) {
		t.Helper()
		_, err := c.Write([]byte("x"))
		require.NoError(t, err)
		b := make([]byte, 1)
		_, err = io.ReadFull(c, b)
		require.NoError(t, err)
		require.Equal(t, "x", string(b))
	}
	before := dial()
	says(before)

	l.cut()
	_, err = before.Read(make([]byte, 1))
	require.Error(t, err, "an open connection ends")
	_, err = new(net.Dialer).DialContext(t.Context(), "tcp", address)
	require.Error(t, err, "a new one is refused")
	require.NoError(t, l.mend())
	require.Equal(t, address, l.address())
	says(dial())

	quiet := dial()
	says(quiet)
	require.NoError(t, l.silence())
	_, err = quiet.Write([]byte("x"))
	require.NoError(t, err, "nobody is told")
	require.NoError(t, quiet.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err = quiet.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	l.clear(t.Context())
	require.NoError(t, quiet.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = quiet.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "bytes were lost: the connection is over")
	says(dial())
}

func TestAFollowerNotesAGapAndARepeat(t *testing.T) {
	t.Parallel()
	for _, seqs := range [][]int64{{1, 3}, {1, 1}, {2}} {
		f := &follower{}
		for _, seq := range seqs {
			f.take(rig.Block{Seq: seq})
		}
		require.Len(t, f.wrong, 1, "%v", seqs)
	}
}

func TestNotificationsAreLostOrDoubledAndNothingElse(t *testing.T) {
	t.Parallel()
	message := func(kind byte, body string) string { return string([]byte{kind, 0, 0, 0, byte(4 + len(body))}) + body }
	sent := message('R', "ok") + message('A', "note") + message('Z', "I")
	for _, copies := range []int{0, 1, 2} {
		here, there := net.Pipe()
		t.Cleanup(func() { _ = here.Close() })
		notified := 0
		go func() {
			tampered(there, strings.NewReader(sent), func() (int, time.Duration) { notified++; return copies, 0 })
		}()
		got := make([]byte, len(sent)+(copies-1)*len(message('A', "note")))
		require.NoError(t, here.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, err := io.ReadFull(here, got)
		require.NoError(t, err)
		require.Equal(t, copies, strings.Count(string(got), message('A', "note")))
		require.Contains(t, string(got), message('R', "ok"))
		require.Contains(t, string(got), message('Z', "I"))
		require.Equal(t, 1, notified)
	}
}

func TestTheLongFormTakesTheFaultThatLacksMost(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "report.md")
	require.NoError(t, os.WriteFile(path, []byte(tableBegin+tableEnd), 0o600))
	kept := newTallies(nil)
	kept.of("a").Met = 10
	require.NoError(t, addTo(path, kept))
	now := newTallies(nil)
	next, err := options{write: path}.order([]fault{{name: "a", want: 20}, {name: "b", want: 10}}, now)
	require.NoError(t, err)
	require.Equal(t, "b", next().name, "of a the report counts some")
	now.of("b").Met = 6
	require.Equal(t, "a", next().name)

	next, err = options{iterations: 2}.order([]fault{{name: "a"}, {name: "b"}}, now)
	require.NoError(t, err)
	for _, want := range []string{"a", "b", "a", "b"} {
		require.Equal(t, want, next().name)
	}
	require.Nil(t, next())
}

func blockOf(seq int, text string) rig.Block { return rig.Block{Seq: int64(seq), Text: text + "\n"} }
