package spend_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/rig"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

const (
	fleetProcesses = 10
	fleetClients   = 32
	fleetCalls     = 4 // of each client
	workerEnv      = "SPEND_TEST_WORKER"
)

// errand is what a process of the fleet is to do.
type errand struct {
	URL    string
	Worker int
	Wave   string
	Calls  int
	// Sats is what a call costs; 0 for an amount that the client's number gives.
	Sats int64
}

// sum is what an errand came to.
type sum struct {
	Held, Refused int
	Reasons       map[string]int
	Err           string
}

// sats is what a call of a client costs.
func (e errand) sats(client int) int64 {
	if e.Sats > 0 {
		return e.Sats
	}
	return int64(1 + (e.Worker*fleetClients+client)%7)
}

// work runs an errand in this process and tells what it came to on standard
// output. It tells "call" after each, so that whoever started it can kill it in
// the middle.
func work(text string) error {
	var e errand
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	pool, err := pg.Open(ctx, pg.Config{URL: e.URL, MaxConns: 6, AppName: fmt.Sprintf("worker %d", e.Worker)})
	if err != nil {
		return err
	}
	defer pool.Close()
	p := &runtest.Process{Pool: pool, Watch: runlog.NewWatch()}
	p.Log = runlog.NewAppender(pool, p.Watch, 2, telemetry.NewMetrics())
	logging, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.Log.Run(logging) }()
	sums := make([]sum, fleetClients)
	told := make(chan struct{}, fleetClients)
	var g errgroup.Group
	for c := range fleetClients {
		g.Go(func() error { return client(ctx, p, e, c, &sums[c], told) })
	}
	go func() {
		for range told {
			fmt.Println("call")
		}
	}()
	total := sum{Reasons: map[string]int{}}
	if err := g.Wait(); err != nil {
		total.Err = err.Error()
	}
	for _, s := range sums {
		total.Held += s.Held
		total.Refused += s.Refused
		for reason, n := range s.Reasons {
			total.Reasons[reason] += n
		}
	}
	end()
	line, err := json.Marshal(total)
	if err != nil {
		return err
	}
	fmt.Println("sum " + string(line))
	return <-done
}

// client makes its calls one after the other. One that was made before, by a
// process that was killed, is settled and not made again.
func client(ctx context.Context, p *runtest.Process, e errand, c int, s *sum, told chan<- struct{}) error {
	s.Reasons = map[string]int{}
	user := int64(1)
	id := uuid.NewSHA1(uuid.Nil, fmt.Appendf(nil, "%s %d %d", e.Wave, e.Worker, c)).String()
	r, _, err := run.Start(ctx, p.Pool, run.Envelope{RunID: id, ThreadID: id, UserID: &user})
	if err != nil {
		return err
	}
	for i := range e.Calls {
		in := runtest.Call(r, fmt.Sprintf("call-%d", i), e.sats(c))
		denied, err := p.Hold(ctx, in, 0)
		if err != nil {
			return fmt.Errorf("hold: %w", err)
		}
		switch denied {
		case "":
			err := p.Settle(ctx, r, in.CallID, 0, func(h db.SpendReservation) (runlog.Change, error) {
				return spend.Commit(h, spend.Settled{AmountSats: in.Quote.AmountSats, CorrelationID: in.CallID}, 0)
			})
			if err != nil {
				return fmt.Errorf("settle: %w", err)
			}
			s.Held++
		case "policy_denied.already_finalized":
			s.Held++
		default:
			s.Refused++
			s.Reasons[denied]++
		}
		told <- struct{}{}
	}
	return nil
}

// send starts a process of the fleet and waits for its sum. With killAfter it is
// killed when it has told of so many calls, and killed is true.
func send(t *testing.T, e errand, killAfter int) (s sum, killed bool, err error) {
	text, err := json.Marshal(e)
	if err != nil {
		return s, false, err
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return s, false, err
	}
	if err := cmd.Start(); err != nil {
		return s, false, err
	}
	calls, found := 0, false
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "sum "); ok {
			found = true
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				return s, false, err
			}
			continue
		}
		if calls++; killAfter > 0 && calls == killAfter {
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				return s, false, err
			}
		}
	}
	if _, err := io.Copy(io.Discard, out); err != nil && !killed {
		return s, killed, err
	}
	err = cmd.Wait()
	switch {
	case killed:
		return s, true, nil
	case err != nil || !found:
		return s, false, fmt.Errorf("worker %d: %w: %s", e.Worker, errors.Join(err), said.String())
	case s.Err != "":
		return s, false, fmt.Errorf("worker %d: %s", e.Worker, s.Err)
	}
	return s, false, nil
}

// fleet sends all processes on an errand at once and adds up what they came to.
// Those that killAfter names are killed in the middle and sent again.
func fleet(t *testing.T, e errand, killAfter func(worker int) int) (total sum) {
	t.Helper()
	sums := make([]sum, fleetProcesses)
	var kills atomic.Int32
	var g errgroup.Group
	for w := range fleetProcesses {
		e := e
		e.Worker = w
		g.Go(func() (err error) {
			killed := true
			for try := 0; killed && err == nil; try++ {
				after := 0
				if killAfter != nil && try < 2 {
					after = killAfter(w) * (try + 1)
				}
				if sums[w], killed, err = send(t, e, after); killed {
					kills.Add(1)
				}
			}
			return err
		})
	}
	require.NoError(t, g.Wait())
	if killAfter != nil {
		require.GreaterOrEqual(t, int(kills.Load()), fleetProcesses, "each was killed")
	}
	total.Reasons = map[string]int{}
	for _, s := range sums {
		total.Held += s.Held
		total.Refused += s.Refused
		for reason, n := range s.Reasons {
			total.Reasons[reason] += n
		}
	}
	return total
}

// everything is what all calls of a wave cost together.
func everything(e errand) (all int64) {
	for w := range fleetProcesses {
		for c := range fleetClients {
			e.Worker = w
			all += e.sats(c) * int64(e.Calls)
		}
	}
	return all
}

// Ten processes of 32 clients each spend from one authorization: what it has room
// for is held, all of it, and not a sat more. The cap is the exact sum of what the
// calls cost, so that a single hold that is refused without cause leaves some of it.
func TestTenProcessesSpendOneAuthorizationToTheLastSat(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		line      func(t *testing.T, databaseURL string) string
		killAfter func(worker int) int
	}{
		"undisturbed": {func(_ *testing.T, url string) string { return url }, nil},
		"killed and started again": {func(_ *testing.T, url string) string { return url }, func(w int) int {
			return 5 + 7*(w%4) // all of them, at different calls
		}},
		"a database 1 ms away": {away, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			e := errand{URL: c.line(t, dbtest.URL(t)), Wave: "all of it", Calls: fleetCalls}
			most := everything(e)
			auth := runtest.Authorize(t, pool, runtest.Budget(most))
			total := fleet(t, e, c.killAfter)
			require.Empty(t, total.Reasons, "everything fits")
			require.Equal(t, fleetProcesses*fleetClients*fleetCalls, total.Held)
			requireSpent(t, pool, auth.AuthorizationID, most)

			// Nothing is left, and then room for a hundred of the next 320.
			total = fleet(t, errand{URL: e.URL, Wave: "none", Calls: 1, Sats: 1}, nil)
			require.Equal(t, map[string]int{"policy_denied.budget_exhausted": fleetProcesses * fleetClients}, total.Reasons)
			_, _, err := spend.Amend(t.Context(), pool, auth.AuthorizationID, spend.Amendment{Actor: "test", RaiseBySats: 100})
			require.NoError(t, err)
			total = fleet(t, errand{URL: e.URL, Wave: "a hundred", Calls: 1, Sats: 1}, nil)
			require.Equal(t, 100, total.Held)
			requireSpent(t, pool, auth.AuthorizationID, most+100)
		})
	}
}

func requireSpent(t *testing.T, pool db.DBTX, id string, most int64) {
	t.Helper()
	a, err := spend.Get(t.Context(), pool, id)
	require.NoError(t, err)
	require.Equal(t, [2]int64{most, 0}, [2]int64{a.SpentSats, a.ReservedSats})
	drift, err := spend.Drift(t.Context(), pool)
	require.NoError(t, err)
	require.Empty(t, drift)
}

// away puts the database 1 ms away.
func away(t *testing.T, databaseURL string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	require.NoError(t, err)
	query := u.Query()
	upstream := u.Host
	if host := query.Get("host"); strings.HasPrefix(host, "/") {
		relay, err := rig.NewRelay()
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, relay.Close()) })
		port := query.Get("port")
		if port == "" {
			port = "5432"
		}
		relay.Point(filepath.Join(host, ".s.PGSQL."+port))
		upstream = relay.Address()
	}
	proxy := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "away", "127.0.0.1:0", upstream)
	require.NoError(t, proxy.Start())
	t.Cleanup(proxy.Stop)
	_, err = proxy.Toxics.AddToxicJson(strings.NewReader(`{"name": "away", "type": "latency", "stream": "downstream", "attributes": {"latency": 1}}`))
	require.NoError(t, err)
	query.Del("host")
	query.Del("port")
	query.Set("sslmode", "disable")
	u.Host, u.RawQuery = proxy.Listen, query.Encode()
	return u.String()
}
