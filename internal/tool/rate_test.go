package tool_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// perMinute lets so many calls through for ada.
func perMinute(n int) func(context.Context, string, tool.Spec) (int, bool, error) {
	return func(_ context.Context, owner string, _ tool.Spec) (int, bool, error) { return n, owner == "ada", nil }
}

func free(name string) ds.PolicyEvaluationV1Input {
	return ds.PolicyEvaluationV1Input{Action: ds.PolicyEvaluationV1Action{Kind: "tool", ToolName: &name}}
}

// Of many that ask at once in several processes exactly as many are let through as
// the rate says; who is refused is told when to come again.
func TestARateIsHeldToByAllProcessesTogether(t *testing.T) {
	t.Parallel()
	const most, asked = 20, 120
	pool := dbtest.New(t)
	processes := []tool.Rates{{Pool: pool, Of: perMinute(most)}, {Pool: pool, Of: perMinute(most)}}
	key, s := uuid.New(), spec("a")
	var through, refused atomic.Int64
	var first atomic.Pointer[string]
	var all errgroup.Group
	all.SetLimit(32)
	for i := range asked {
		all.Go(func() error {
			id := fmt.Sprint("call_", i)
			e, err := processes[i%2].Decide(context.Background(), free("a"), "ada", key, id, s)
			if err != nil {
				return err
			}
			if e.Decision == policy.Allowed {
				through.Add(1)
				first.CompareAndSwap(nil, &id)
				return nil
			}
			refused.Add(1)
			if e.ReasonCode != "policy_denied.rate_limited" || e.RetryAfter <= 0 || e.RetryAfter > time.Minute {
				return fmt.Errorf("%s after %s", e.ReasonCode, e.RetryAfter)
			}
			_, err = policy.Replay(e.Document)
			return err
		})
	}
	require.NoError(t, all.Wait())
	require.EqualValues(t, most, through.Load())
	require.EqualValues(t, asked-most, refused.Load())

	decide := func(r tool.Rates, owner, id string, s tool.Spec) policy.Evaluation {
		t.Helper()
		e, err := r.Decide(t.Context(), free("a"), owner, key, id, s)
		require.NoError(t, err)
		return e
	}
	rates := processes[0]
	require.Equal(t, policy.Allowed, decide(rates, "ada", *first.Load(), s).Decision, "it has counted")
	require.Equal(t, policy.Denied, decide(rates, "ada", "another", s).Decision)
	require.Equal(t, policy.Allowed, decide(rates, "eve", "another", s).Decision, "the manifest is not hers")
	require.Equal(t, policy.Allowed, decide(rates, "ada", "another", spec("b")).Decision, "of another provider")
	require.Equal(t, policy.Allowed, decide(rates, "ada", "another", spec("a", func(s *tool.Spec) { s.Kind = tool.Client })).Decision)
	require.Equal(t, policy.Allowed, decide(tool.Rates{}, "ada", "another", s).Decision)

	// The window slides: when the first three are a minute ago there is room for three.
	_, err := pool.Exec(t.Context(), `UPDATE tool_rates SET taken_at[1:3] = ARRAY(
		SELECT clock_timestamp() - interval '1 minute' FROM generate_series(1, 3)) WHERE provider = 'provider.a'`)
	require.NoError(t, err)
	for i := range 4 {
		want := policy.Allowed
		if i == 3 {
			want = policy.Denied
		}
		require.Equal(t, want, decide(rates, "ada", fmt.Sprint("later_", i), s).Decision, i)
	}
	lower := tool.Rates{Pool: pool, Of: perMinute(2)}
	e := decide(lower, "ada", "lower", s)
	require.Equal(t, policy.Denied, e.Decision)
	require.Greater(t, e.RetryAfter, time.Duration(0))
	require.Equal(t, policy.Allowed, decide(lower, "ada", "later_2", s).Decision, "it was let through before")
}

// What policy refuses, or a person must approve, does not count.
func TestOnlyWhatIsAllowedCounts(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	rates := tool.Rates{Pool: pool, Of: perMinute(1)}
	for _, change := range []func(*ds.PolicyEvaluationV1Policy){
		func(p *ds.PolicyEvaluationV1Policy) {
			p.Layers = []ds.PolicyEvaluationV1Layer{{Label: "run", Deny: []string{"*"}}}
		},
		func(p *ds.PolicyEvaluationV1Policy) { p.RequireApproval = []string{"*"} },
	} {
		in := free("a")
		in.Policy = &ds.PolicyEvaluationV1Policy{}
		change(in.Policy)
		e, err := rates.Decide(t.Context(), in, "ada", uuid.New(), "call", spec("a"))
		require.NoError(t, err)
		require.NotEqual(t, policy.Allowed, e.Decision)
	}
	var rows int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM tool_rates").Scan(&rows))
	require.Zero(t, rows)
}
