package runlog_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// A page of many runs is for each what a page of it alone is: at its end, in its
// midst, when it is folded.
func TestAPageOfManyRunsIsThePageOfEach(t *testing.T) {
	t.Parallel()
	p := runtest.NewProcess(t, dbtest.New(t))
	live, folded, empty := runtest.Run(t, p.Pool), runtest.Run(t, p.Pool), runtest.Run(t, p.Pool)
	words := make([]string, 30)
	for i := range words {
		words[i] = "word "
	}
	p.Append(t, live, runtest.Reply(words...)[:25]...)
	last := p.Append(t, folded, runtest.Reply(words...)...).LastSeq
	_, err := runlog.Retention{Pool: p.Pool}.Fold(t.Context())
	require.NoError(t, err)
	for _, limit := range []int{1, 7, 256} {
		for seq := range last {
			places := []runlog.Place{{RunKey: live.RunKey, Seq: seq}, {RunKey: folded.RunKey, Seq: seq}, {RunKey: empty.RunKey, Seq: 1}}
			pages, err := runlog.AfterEach(t.Context(), p.Pool, places, limit)
			require.NoError(t, err)
			for i, place := range places {
				alone, err := runlog.After(t.Context(), p.Pool, place.RunKey, place.Seq, limit)
				require.NoError(t, err)
				require.ElementsMatch(t, alone, pages[i], "place %v, limit %d", place, limit)
			}
		}
	}
}
