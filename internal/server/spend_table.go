package server

import (
	"bytes"
	"encoding/csv"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
)

// tableColumns are the columns of a statement as a table. Texts of others stand
// in run … host and actor; amounts and moments are ours.
var tableColumns = []string{
	"time_utc", "kind", "authorization", "run", "call", "tool", "provider", "payee", "host", "debit", "credit",
	"amount_sats", "balance_sats", "held_sats", "available_sats", "spent_sats", "payment_hash", "proof_hash", "actor", "entry",
}

// tableTime is what spreadsheets read as a moment.
const tableTime = "2006-01-02 15:04:05.000"

// statementTable writes a page of a statement as RFC 4180 has it. The first page
// begins with the column names and the opening balance; the last ends with the
// closing balance and the sums.
func statementTable(s ds.SpendStatementV1, first, last bool) ([]byte, error) {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	w.UseCRLF = true
	var rows [][]string
	if first {
		rows = append(rows, tableColumns, balanceRow("opening balance", s.AuthorizationID, s.From, s.Opening))
	}
	for _, m := range s.Movements {
		rows = append(rows, movementRow(m))
	}
	if last {
		rows = append(rows, balanceRow("closing balance", s.AuthorizationID, s.To, s.Closing))
		for _, sum := range sumsOf(s.Sums) {
			row := make([]string, len(tableColumns))
			row[1], row[2], row[11] = "sum of "+sum.kind, unformed(s.AuthorizationID), sats(sum.sats)
			rows = append(rows, row)
		}
	}
	if err := w.WriteAll(rows); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func movementRow(m ds.SpendStatementV1Movement) []string {
	return []string{
		m.At.UTC().Format(tableTime), string(m.Kind), unformed(m.AuthorizationID), told(m.RunID), told(m.ToolCallID), told(m.Tool),
		told(m.Provider), told(m.Payee), told(m.Host), string(m.Debit), string(m.Credit), sats(m.AmountSats), sats(m.BalanceSats),
		sats(m.HeldSats), sats(m.AvailableSats), sats(m.SpentSats), told(m.PaymentHash), told(m.ProofHash), told(m.Actor), m.EntryID.String(),
	}
}

func balanceRow(kind, authorizationID string, at time.Time, b ds.SpendStatementV1Balance) []string {
	row := make([]string, len(tableColumns))
	row[0], row[1], row[2] = at.UTC().Format(tableTime), kind, unformed(authorizationID)
	row[12], row[13], row[14], row[15] = sats(b.BalanceSats), sats(b.HeldSats), sats(b.AvailableSats), sats(b.SpentSats)
	return row
}

type sum struct {
	kind string
	sats int64
}

func sumsOf(s ds.SpendStatementV1Sums) []sum {
	return []sum{
		{"issue", s.IssuedSats}, {"raise", s.RaisedSats}, {"lower", s.LoweredSats}, {"hold", s.HeldSats},
		{"capture", s.CapturedSats}, {"release", s.ReleasedSats}, {"overage", s.OverageSats}, {"reversal", s.ReversedSats},
	}
}

func sats(n int64) string { return strconv.FormatInt(n, 10) }

func told(s *string) string { return unformed(deref(s)) }

// unformed is a text that no spreadsheet takes for a formula: models, tools and
// payees choose what stands in it. What programs pass over in silence may stand
// before the sign that makes one.
func unformed(s string) string {
	silent := func(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }
	first, _ := utf8.DecodeRuneInString(strings.TrimLeftFunc(s, silent))
	if unicode.IsControl(first) || strings.ContainsRune("=+-@|%\u2212\uff1d\uff0b\uff0d\uff20", first) || strings.HasPrefix(s, "\t") || strings.HasPrefix(s, "\r") {
		return "'" + s
	}
	return s
}
