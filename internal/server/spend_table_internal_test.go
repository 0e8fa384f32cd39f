package server

import (
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
)

func TestNoTextIsAFormula(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"=1+1", "+1", "-1", "@SUM(A1)", "|cmd", "%0", "\t=1", "\r=1", "\n=1", " =1", "\u00a0=1", "\ufeff=1", "\u200b+1", "\u202e=1",
		"\u2212 1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201", "\x1b[31m=1", "\x00=1", " \u200b \t=HYPERLINK(\"x\")", "\t",
	} {
		require.Equal(t, "'"+text, unformed(text), "%q", text)
	}
	for _, text := range []string{"", " ", "02abc", "lnbc1", "a=1", "run-7", "\u00fc", "sha256:00", "*.example.com", "\"x\",y"} {
		require.Equal(t, text, unformed(text), "%q", text)
	}
}

func TestPagesOfATableAreOneTable(t *testing.T) {
	t.Parallel()
	payee := "Ada, \"the payee\"\nof Paris"
	s := ds.SpendStatementV1{AuthorizationID: "auth-1", From: time.Unix(0, 0), To: time.Unix(1, 0), Closing: ds.SpendStatementV1Balance{BalanceSats: -5}}
	var all strings.Builder
	for page := range 3 {
		s.Movements = []ds.SpendStatementV1Movement{{Kind: "hold", Payee: &payee, AmountSats: int64(page) + 1}}
		table, err := statementTable(s, page == 0, page == 2)
		require.NoError(t, err)
		require.True(t, strings.HasSuffix(string(table), "\r\n"))
		all.Write(table)
	}
	rows, err := csv.NewReader(strings.NewReader(all.String())).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 1+1+3+1+8)
	require.Equal(t, tableColumns, rows[0])
	for i, kind := range []string{"kind", "opening balance", "hold", "hold", "hold", "closing balance", "sum of issue"} {
		require.Equal(t, kind, rows[i][1])
	}
	require.Equal(t, payee, rows[2][7])
	require.Equal(t, []string{"1", "2", "3"}, []string{rows[2][11], rows[3][11], rows[4][11]})
	require.Equal(t, "-5", rows[5][12], "a negative amount stays a number")
	require.Equal(t, "1970-01-01 00:00:00.000", rows[1][0])
}
