package executor_test

import (
	"bytes"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// A process is as large after a thousand runs as before them. The test is alone
// in its process: it counts all goroutines, so it calls no t.Parallel.
func TestRunsWithToolsLeaveNoGoroutineBehind(t *testing.T) {
	pool := dbtest.New(t)
	p := workWith(t, pool, asking{}, with(t, echo("test.echo")))
	work := func(runs int) {
		var all []db.Run
		for range runs {
			r := runtest.Start(t, pool, allowing())
			p.Message(t, r, "f1", "Go.")
			all = append(all, r)
		}
		for _, r := range all {
			require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
		}
	}
	work(50) // what a process begins with its first runs, it keeps
	before := lowest(t, 0)
	work(1000)
	var called int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM tool_tasks WHERE state = 'succeeded'").Scan(&called))
	require.Equal(t, 3*1050, called)
	lowest(t, before)
}

// lowest waits until there are at most so many goroutines, and says how many
// there are; 0 waits until their number stands still.
func lowest(t *testing.T, most int) int {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for still, last := 0, runtime.NumGoroutine(); ; {
		select {
		case <-tick.C:
		case <-late:
			var all bytes.Buffer
			require.NoError(t, pprof.Lookup("goroutine").WriteTo(&all, 1))
			t.Fatalf("%d goroutines, and there may be %d:\n%s", last, most, all.String())
		}
		n := runtime.NumGoroutine()
		if still++; n != last {
			still, last = 0, n
		}
		if n <= most || most == 0 && still == 25 {
			return n
		}
	}
}
