package pg_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
)

const channel = `Odd "channel"`

// listener is a Listen that runs, and all it said.
type listener struct {
	notes, gaps, lost chan string
	end               context.CancelFunc
	ended             chan error
}

func listen(t *testing.T, url string) *listener {
	t.Helper()
	return listenAtPace(t, url, time.Minute, time.Minute)
}

func listenAtPace(t *testing.T, url string, idle, probe time.Duration) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &listener{notes: make(chan string, 100), gaps: make(chan string, 100), lost: make(chan string, 100), end: cancel, ended: make(chan error, 1)}
	go func() {
		l.ended <- pg.ListenAtPace(ctx, idle, probe, url, channel,
			func(payload string) { l.notes <- payload },
			func() { l.gaps <- "gap" },
			func(err error) { l.lost <- err.Error() })
	}()
	return l
}

func next[T any](t *testing.T, from chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("no %s came", what)
		panic("unreachable")
	}
}

func notify(t *testing.T, conn *pgx.Conn, payload string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), "SELECT pg_notify($1, $2)", channel, payload)
	require.NoError(t, err)
}

func TestAListenerSurvivesItsConnection(t *testing.T) {
	t.Parallel()
	url := dbtest.EmptyURL(t)
	conn := connect(t, url)
	l := listen(t, url)
	next(t, l.gaps, "call of onGap after the first connect")
	notify(t, conn, "one")
	require.Equal(t, "one", next(t, l.notes, "notification"))

	for round := range 3 {
		require.Equal(t, 1, number(t, conn, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name LIKE '%listen%'`))
		require.Contains(t, next(t, l.lost, "report of the loss"), "57P01")
		next(t, l.gaps, "call of onGap after a reconnect")
		payload := fmt.Sprintf("after %d", round)
		notify(t, conn, payload)
		require.Equal(t, payload, next(t, l.notes, "notification after a reconnect"))
	}

	l.end()
	require.NoError(t, next(t, l.ended, "return"))
	require.Empty(t, l.lost, "an end that was asked for is no loss")
	require.Eventually(t, func() bool {
		return number(t, conn, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name LIKE '%listen%'`) == 0
	}, 10*time.Second, 10*time.Millisecond, "the connection is closed")
}

// relay stands between a client and a server's socket. When it is deaf it takes
// bytes and passes none on, as a network does whose other end vanished.
type relay struct {
	port int
	deaf atomic.Bool
}

func newRelay(t *testing.T, socket string) *relay {
	t.Helper()
	door, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = door.Close() })
	r := &relay{port: door.Addr().(*net.TCPAddr).Port}
	go func() {
		for {
			client, err := door.Accept()
			if err != nil {
				return // the door was closed
			}
			server, err := net.Dial("unix", socket)
			if err != nil {
				_ = client.Close()
				continue
			}
			go r.pass(client, server)
			go r.pass(server, client)
		}
	}()
	return r
}

func (r *relay) pass(from, to net.Conn) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if r.deaf.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestAListenerNoticesASilentServer(t *testing.T) {
	t.Parallel()
	url := dbtest.EmptyURL(t)
	conn := connect(t, url)
	cfg := conn.Config()
	_, address := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	r := newRelay(t, address)
	l := listenAtPace(t, fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", cfg.User, r.port, cfg.Database), 20*time.Millisecond, 500*time.Millisecond)
	next(t, l.gaps, "call of onGap after the first connect")

	// Many quiet spells pass while the server answers, and nothing is lost.
	asked := func() int {
		return number(t, conn, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND application_name LIKE '%listen%' AND query LIKE '%ping%' AND state_change > backend_start + interval '200 ms'`)
	}
	require.Eventually(t, func() bool { return asked() == 1 }, 10*time.Second, 10*time.Millisecond)
	notify(t, conn, "still here")
	require.Equal(t, "still here", next(t, l.notes, "notification"))
	require.Empty(t, l.lost)

	r.deaf.Store(true)
	next(t, l.lost, "report of the loss")
	r.deaf.Store(false)
	next(t, l.gaps, "call of onGap after the reconnect")
	l.end()
	require.NoError(t, next(t, l.ended, "return"))
}

func TestAListenerKeepsTryingWhileThereIsNoServer(t *testing.T) {
	t.Parallel()
	l := listen(t, "postgres://nobody@127.0.0.1:1/db?sslmode=disable")
	next(t, l.lost, "first failure")
	next(t, l.lost, "second failure")
	require.Empty(t, l.gaps)
	l.end()
	require.NoError(t, next(t, l.ended, "return"))
}
