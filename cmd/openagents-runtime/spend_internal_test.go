package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestProgressIsOneLineThatIsWrittenOver(t *testing.T) {
	t.Parallel()
	var watched, unwatched bytes.Buffer
	for _, p := range []progress{{out: &watched, on: true}, {out: &unwatched}} {
		p.show(0, 0)
		p.show(1, 3)
		p.show(3, 3)
		p.end()
	}
	require.Equal(t, []string{
		"", "[" + strings.Repeat("#", 30) + "] 0 of 0", "[" + strings.Repeat("#", 10) + strings.Repeat(".", 20) + "] 1 of 3",
		"[" + strings.Repeat("#", 30) + "] 3 of 3\n",
	}, strings.Split(watched.String(), "\r"))
	require.Empty(t, unwatched.String())
}

func TestMomentsAreReadInUTC(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 2, 18, 10, 0, 0, 0, time.FixedZone("half an hour off", -3*3600-1800))
	for text, want := range map[string]string{
		"24h": "2026-02-19T13:30:00Z", "-1h30m": "2026-02-18T12:00:00Z", "2026-03-01": "2026-03-01T00:00:00Z",
		"2026-03-01T01:00:00+01:00": "2026-03-01T00:00:00Z", "2026-03-01T00:00:00.5Z": "2026-03-01T00:00:00.5Z",
	} {
		got, err := moment(text, now)
		require.NoError(t, err)
		require.Equal(t, want, got.Format(time.RFC3339Nano), text)
	}
	for _, text := range []string{"", "tomorrow", "2026-13-01", "1", "2026-03-01 10:00"} {
		_, err := moment(text, now)
		require.ErrorContains(t, err, "is no moment", text)
	}
}

func TestATerminalShowsTextsAsTexts(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, table(&out, [][]string{{"NAME", "B"}, {"\x1b]0;owned\a", "x"}, {"line\nbreak", ""}, {"ü", "-"}}))
	require.Equal(t, "NAME              B\n\"\\x1b]0;owned\\a\"  x\n\"line\\nbreak\"\nü                 -\n", out.String())
}
