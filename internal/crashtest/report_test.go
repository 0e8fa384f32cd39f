package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCountsAddUpFromCampaignToCampaign(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "report.md")
	require.NoError(t, os.WriteFile(path, []byte("# Before\n"+tableBegin+tableEnd+"after\n"), 0o644))
	for _, seed := range []uint64{3, 1 << 63} {
		l := newTallies([]fault{{name: "kill"}, {name: "stop"}})
		l.add("kill", result{runs: 6, met: 2, takeovers: []time.Duration{time.Second, 1001 * time.Millisecond}, violations: []string{"x"}})
		l.add("kill", result{runs: 6, met: 1, takeovers: []time.Duration{2 * time.Second}})
		l.add("stop", result{missed: true})
		l.Campaigns = []campaignNote{{seed, "1s", l.trials()}}
		require.NoError(t, addTo(path, l))
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	text := string(b)
	require.True(t, strings.HasPrefix(text, "# Before\n") && strings.HasSuffix(text, "after\n"), text)
	require.Contains(t, text, "| kill | 4 | 24 | 6 | 6 | 1.05 s / 2.00 s | 0 | 0 | 2 |")
	require.Contains(t, text, "| stop | 0 | 0 | 0 | 0 | – / – | 0 | 0 | 0 |")
	require.Contains(t, text, "6 trials in 2 campaigns")
	require.Contains(t, text, `{"seed":9223372036854775808,"ttl":"1s","trials":3}`)
}

func TestTheReportOfThisRepositoryCanBeAddedTo(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/reliability.md")
	require.NoError(t, err)
	_, kept, _, err := split(string(b))
	require.NoError(t, err)
	known := map[string]bool{}
	for _, f := range allFaults() {
		known[f.name] = true
	}
	for _, c := range kept.Tallies {
		require.True(t, known[c.Fault], "the report counts %q, which is no fault", c.Fault)
	}
}

func TestAReportWithoutAPlaceForCountsIsRefused(t *testing.T) {
	t.Parallel()
	_, _, _, err := split("# Nothing here\n")
	require.ErrorContains(t, err, "no place for counts")
}

func TestACampaignInWhichAFaultMetNobodyFails(t *testing.T) {
	t.Parallel()
	l := newTallies([]fault{{name: "kill"}})
	l.add("kill", result{missed: true})
	require.ErrorContains(t, conclude(l, options{}, false, nil), "never met anybody: kill")
	l.add("kill", result{})
	require.NoError(t, conclude(l, options{}, false, nil))
	require.ErrorIs(t, conclude(l, options{}, true, nil), errViolated)
}
