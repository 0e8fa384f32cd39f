package contracttest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/server"
)

// slowAppends takes a connection for a while before each append, so that the
// capacity is the database's and not this machine's.
type slowAppends struct {
	*server.Server
	pool *pgxpool.Pool
}

const (
	loadConns   = 4
	loadTakes   = 50 * time.Millisecond // of a connection, per append
	loadAtOnce  = 8                     // requests at full capacity
	loadTimes   = 4                     // how often the capacity is asked for
	loadFor     = 2 * time.Second       // each phase of a round
	loadRounds  = 3
	loadAnswers = 50 * time.Millisecond // for a refusal
)

func (s slowAppends) AppendFrame(ctx context.Context, req api.AppendFrameRequestObject) (api.AppendFrameResponseObject, error) {
	if _, err := s.pool.Exec(ctx, "SELECT pg_sleep($1)", loadTakes.Seconds()); err != nil {
		return nil, err
	}
	return s.Server.AppendFrame(ctx, req)
}

// load is what a phase was answered.
type load struct {
	mu       sync.Mutex
	accepted []time.Duration
	refused  []time.Duration
	other    []string
}

func (l *load) add(a contracttest.Answer, err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.other = append(l.other, err.Error())
	case a.Status == http.StatusAccepted:
		l.accepted = append(l.accepted, took)
	case (a.Code() == string(api.Overloaded) || a.Code() == string(api.OwnerBusy)) && a.Header.Get("Retry-After") != "":
		l.refused = append(l.refused, took)
	default:
		l.other = append(l.other, fmt.Sprintf("%d %s", a.Status, a.Body))
	}
}

func p99(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[(len(sorted)-1)*99/100]
}

// Asked for several times what it can do, the service goes on with what it can
// do as fast as before, refuses the rest at once, and answers those who read.
// The machine may be busy with other things, so one good round of three is
// enough: what else happens makes a round worse and never better.
func TestBeyondItsCapacityTheServiceSheds(t *testing.T) {
	pool := poolOf(t, loadConns)
	rig := contracttest.New(t, pool, contracttest.Options{
		Admission: server.AdmissionConfig{MaxInFlight: loadAtOnce},
		Answers:   func(s *server.Server) api.StrictServerInterface { return slowAppends{s, pool} },
	})
	// One owner has half of the places at the most.
	require.Equal(t, http.StatusAccepted, rig.Do(t, startOf("r1")).Status)
	other := startOf("r2")
	other.User, other.Body = 2, `{"runId":"r2","threadId":"t","userId":2,"authenticatedSession":true}`
	require.Equal(t, http.StatusAccepted, rig.Do(t, other).Status)
	var frames atomic.Int64
	ask := func(l *load, client int) {
		user := int64(1 + client%2)
		q := frameOf(fmt.Sprint("r", user), fmt.Sprint("f", frames.Add(1)))
		q.User = user
		begun := time.Now()
		a, err := rig.Send(t, q)
		l.add(a, err, time.Since(begun))
	}
	var failures []error
	for range loadRounds {
		full, over := atCapacity(ask), beyondCapacity(t, rig, ask)
		require.Empty(t, full.other)
		require.Empty(t, over.other)
		require.Empty(t, full.refused, "at its capacity nothing is refused")
		require.NotEmpty(t, over.refused)
		ratio := p99(over.accepted).Seconds() / p99(full.accepted).Seconds()
		through := float64(len(over.accepted)) / float64(len(full.accepted))
		t.Logf("accepted %d at capacity (p99 %v) and %d beyond (p99 %v, ratio %.2f); refused %d (p99 %v)", len(full.accepted),
			p99(full.accepted), len(over.accepted), p99(over.accepted), ratio, len(over.refused), p99(over.refused))
		if ratio <= 2 && through >= 0.7 && p99(over.refused) <= loadAnswers {
			return
		}
		failures = append(failures, fmt.Errorf("p99 ratio %.2f, throughput ratio %.2f, refusals' p99 %v", ratio, through, p99(over.refused)))
	}
	require.NoError(t, errors.Join(failures...))
}

func poolOf(t *testing.T, conns int32) *pgxpool.Pool {
	t.Helper()
	c := dbtest.New(t).Config()
	c.MinConns, c.MinIdleConns, c.MaxConns = 0, 0, conns
	pool, err := pgxpool.NewWithConfig(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// atCapacity has as many clients as are let in, each asking again at once.
func atCapacity(ask func(l *load, client int)) *load {
	l := &load{}
	var clients sync.WaitGroup
	until := time.Now().Add(loadFor)
	for client := range loadAtOnce {
		clients.Go(func() {
			for time.Now().Before(until) {
				ask(l, client)
			}
		})
	}
	clients.Wait()
	return l
}

// beyondCapacity asks at a rate, whether or not there are answers, and reads
// beside it.
func beyondCapacity(t *testing.T, rig *contracttest.Rig, ask func(l *load, client int)) *load {
	t.Helper()
	l := &load{}
	var clients sync.WaitGroup
	every := time.NewTicker(loadTakes / loadConns / loadTimes)
	defer every.Stop()
	until := time.Now().Add(loadFor)
	for i := 0; time.Now().Before(until); i++ {
		<-every.C
		clients.Go(func() { ask(l, i) })
		if i%50 == 0 {
			clients.Go(func() {
				if a, err := rig.Send(t, contracttest.Request{Target: "/internal/v1/runs/r1"}); err != nil || a.Status != http.StatusOK {
					l.add(a, err, 0)
				}
			})
		}
	}
	clients.Wait()
	return l
}
