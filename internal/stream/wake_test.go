package stream_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

// secondPool is another process's pool on the test's database.
func secondPool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := pg.Open(t.Context(), pg.Config{URL: dbtest.URL(t), MaxConns: 8, AppName: "second"})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// tick runs a process's tick, which finds what no notification told, until the
// test ends.
func tick(t testing.TB, g *rig) {
	if err := g.Watch.Tick(t.Context(), g.Pool, 20*time.Millisecond); err != nil {
		t.Error(err)
	}
}

func TestWhatNoNotificationToldComesWithTheTick(t *testing.T) {
	t.Parallel()
	writer := runtest.NewProcess(t, dbtest.New(t))
	g := newRigOn(t, secondPool(t), stream.Config{})
	go tick(t, g)
	r := runtest.Run(t, writer.Pool)
	live := blocksOf(g.get(t, r, 0))
	live.until(t, 1)
	live.until(t, writer.Append(t, r, runtest.Reply("a")...).LastSeq)
}

func TestTheEndOfTheListeningConnectionCostsTimeOnly(t *testing.T) {
	t.Parallel()
	writer := runtest.NewProcess(t, dbtest.New(t))
	g := newRigOn(t, secondPool(t), stream.Config{})
	connected := make(chan struct{}, 10)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- pg.Listen(ctx, dbtest.URL(t), runlog.Channel, g.Watch.Notified, func() {
			g.Watch.WakeAll()
			connected <- struct{}{}
		})
	}()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	<-connected
	r := runtest.Run(t, writer.Pool)
	live := blocksOf(g.get(t, r, 0))
	script := runtest.Reply(words(9)...)
	got := live.until(t, writer.Append(t, r, script[:5]...).LastSeq)

	tag, err := writer.Pool.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND query LIKE 'LISTEN%'`)
	require.NoError(t, err)
	require.EqualValues(t, 1, tag.RowsAffected())
	last := writer.Append(t, r, script[5:]...).LastSeq
	<-connected
	require.Equal(t, g.wanted(t, r), got+live.until(t, last))
}

// counter counts the reads of the log on a pool.
type counter struct{ reads atomic.Int64 }

func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if len(q.Args) == 3 { // run_key, after_seq, max_events
		c.reads.Add(1)
	}
	return ctx
}

func (c *counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// countingRig is a process whose reads of the log are counted.
func countingRig(t testing.TB, cfg stream.Config) (*rig, *counter) {
	t.Helper()
	pc, err := pgxpool.ParseConfig(dbtest.URL(t))
	require.NoError(t, err)
	c := &counter{}
	pc.ConnConfig.Tracer = c
	pc.ConnConfig.RuntimeParams["search_path"] = pg.Schema
	pool, err := pgxpool.NewWithConfig(t.Context(), pc)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return newRigOn(t, pool, cfg), c
}

func TestManyReadersCostTheReadsOfOne(t *testing.T) {
	t.Parallel()
	const readers, events = 30, 20
	writer := runtest.NewProcess(t, dbtest.New(t))
	g, c := countingRig(t, stream.Config{})
	r := runtest.Run(t, writer.Pool)
	var live []blocks
	for range readers {
		live = append(live, blocksOf(g.get(t, r, 1)))
	}
	script := runtest.Reply(words(events)...)
	for _, e := range script[:events] {
		last := writer.Append(t, r, e).LastSeq
		g.Watch.Notified("another," + r.RunKey.String())
		for _, l := range live {
			l.until(t, last)
		}
	}
	reads := c.reads.Load()
	require.GreaterOrEqual(t, reads, int64(events), "the counter counts")
	require.LessOrEqual(t, reads, int64(events+2), "one read per wake-up, and one at the beginning")
}

func TestAReconnectionIsServedFromWhatIsKept(t *testing.T) {
	t.Parallel()
	writer := runtest.NewProcess(t, dbtest.New(t))
	g, c := countingRig(t, stream.Config{})
	r := runtest.Run(t, writer.Pool)
	other := blocksOf(g.get(t, r, 1))
	script := runtest.Reply(words(20)...)
	var last int64
	for _, e := range [][]event.Event{script[:7], script[7:8], script[8:15]} {
		last = writer.Append(t, r, e...).LastSeq
		g.Watch.Notified("another," + r.RunKey.String())
		other.until(t, last)
	}
	reads, whole := c.reads.Load(), "id: 1\n\n"+blocksOf(g.get(t, r, 1)).until(t, last)
	for cursor := int64(1); cursor < last; cursor++ {
		_, rest, found := strings.Cut(whole, fmt.Sprintf("id: %d\n\n", cursor))
		require.True(t, found)
		require.Equal(t, rest, blocksOf(g.get(t, r, cursor)).until(t, last))
	}
	require.Equal(t, reads, c.reads.Load())
}

// Readers that come back together, a little behind a run that nobody followed
// meanwhile, share one read of what they missed.
func TestReadersThatComeBackTogetherShareOneRead(t *testing.T) {
	t.Parallel()
	const readers = 20
	writer := runtest.NewProcess(t, dbtest.New(t))
	g, c := countingRig(t, stream.Config{})
	r := runtest.Run(t, writer.Pool)
	script := runtest.Reply(words(100)...)
	last := writer.Append(t, r, script[:80]...).LastSeq
	answers := make(chan *http.Response, readers)
	for range readers {
		go func() { answers <- g.get(t, r, 30) }()
	}
	for range readers {
		blocksOf(<-answers).until(t, last)
	}
	reads := c.reads.Load()
	require.Equal(t, int64(1), reads)
	for range readers {
		blocksOf(g.get(t, r, 31)).until(t, last)
	}
	require.Equal(t, reads, c.reads.Load(), "what is kept is shared")
}
