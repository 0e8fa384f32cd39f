package tool_test

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// While a person is asked a tool's time stands still; before and after that it runs.
func TestAToolsTimeStandsStillWhileAPersonIsAsked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, between, after time.Duration // that the tool works; it has a second
		state                  string
		asked                  []int
	}{
		"in time":          {300 * time.Millisecond, 300 * time.Millisecond, 300 * time.Millisecond, tool.Succeeded, []int{0, 1}},
		"late at the end":  {300 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond, tool.TimedOut, []int{0, 1}},
		"late between":     {900 * time.Millisecond, 200 * time.Millisecond, 0, tool.TimedOut, []int{0}},
		"late without any": {1100 * time.Millisecond, 0, 0, tool.TimedOut, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				work := func(ctx context.Context, lasts time.Duration) error {
					select {
					case <-time.After(lasts):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				s := spec("a", func(s *tool.Spec) { s.Boundary = tool.Reconcile })
				r := runner(t, tool.Config{}, made{s, func(ctx context.Context, q tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
					for i, lasts := range []time.Duration{c.before, c.between, c.after} {
						if err := work(ctx, lasts); err != nil {
							return tool.Result{}, err
						}
						if i < 2 {
							if _, err := q.Ask(ctx, tool.Question{}); err != nil {
								return tool.Result{}, err
							}
						}
					}
					return tool.Result{}, nil
				}})
				q, asked := call("a"), []int(nil)
				q.Ask = func(ctx context.Context, q tool.Question) (tool.Answer, error) {
					asked = append(asked, q.Number)
					return tool.Answer{Decided: true}, work(ctx, time.Hour) // people take their time
				}
				o := r.Do(t.Context(), q, s, quiet)
				require.Equal(t, c.state, o.State, "%+v", o.Err)
				require.Equal(t, c.asked, asked)
			})
		})
	}
}
