package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/gen/api"
)

// answer prints an answer for people, or as it is with --json.
func (s *spender) answer(cmd *cobra.Command, status int, body []byte, text func(io.Writer, []byte) error) error {
	if s.json || status >= http.StatusBadRequest {
		return show(cmd, status, body, nil)
	}
	if err := text(cmd.OutOrStdout(), body); err != nil {
		return err
	}
	var page struct {
		NextPageToken string `json:"nextPageToken"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return err
	}
	if page.NextPageToken != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "there are more: --page %s\n", page.NextPageToken)
	}
	return nil
}

// table prints rows in columns, the first one as their names.
func table(out io.Writer, rows [][]string) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = shown(row[i])
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// shown is a text that a terminal takes for nothing else: models and payees choose
// what stands in it.
func shown(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

func sats(n *int64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}

func at(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func told(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

func authorizationsTable(out io.Writer, body []byte) error {
	var list api.SpendAuthorizationPage
	if err := json.Unmarshal(body, &list); err != nil {
		return err
	}
	rows := [][]string{{"AUTHORIZATION", "OWNER", "SCOPE", "MODE", "STATE", "TOTAL", "SPENT", "HELD", "LEFT", "EXPIRES"}}
	for _, a := range list.Authorizations {
		rows = append(rows, []string{
			a.AuthorizationID, a.Owner, scopeText(a), string(a.Mode), string(a.State), sats(a.MaxTotalSats), sats(&a.SpentSats),
			sats(&a.ReservedSats), sats(a.RemainingSats), at(a.ExpiresAt),
		})
	}
	return table(out, rows)
}

func scopeText(a api.SpendAuthorizationV1) string {
	for _, named := range []*string{a.RunID, a.ThreadID, a.AutopilotID} {
		if named != nil {
			return string(a.ScopeKind) + " " + *named
		}
	}
	return string(a.ScopeKind)
}

// authorizationText prints one authorization with its chain.
func authorizationText(out io.Writer, body []byte) error {
	var answer api.SpendAuthorizationAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	a, e := answer.Authorization, answer.Effective
	rows := [][]string{
		{"authorization", a.AuthorizationID}, {"owner", a.Owner}, {"scope", scopeText(a)}, {"mode", string(a.Mode)},
		{"state", string(a.State)}, {"revision", strconv.FormatInt(a.Revision, 10)},
		{"total", sats(a.MaxTotalSats)}, {"spent", sats(&a.SpentSats)}, {"held", sats(&a.ReservedSats)}, {"left", sats(a.RemainingSats)},
		{"per call", sats(a.MaxPerCallSats)}, {"asks above", sats(a.ThresholdSats)},
	}
	for _, p := range a.Periods {
		rows = append(rows, []string{"per " + string(p.Period), fmt.Sprintf("%d, %d left", p.MaxSats, p.RemainingSats)})
	}
	limits, err := json.Marshal(a.Constraints)
	if err != nil {
		return err
	}
	rows = append(rows, []string{"limits", string(limits)}, []string{"on exhaustion", string(a.OnExhaustion)},
		[]string{"unknown price", string(a.UnknownPrice)}, []string{"issued", at(&a.IssuedAt)}, []string{"expires", at(a.ExpiresAt)})
	if a.RevokedAt != nil {
		rows = append(rows, []string{"revoked", at(a.RevokedAt) + " by " + told(a.RevokedBy) + ": " + told(a.RevokeReason)})
	}
	rows = append(rows, []string{"chain allows", fmt.Sprintf("%s, state %s, limited by %s", sats(e.RemainingSats), e.State, told(e.LimitedBy))})
	if err := table(out, rows); err != nil {
		return err
	}
	if len(answer.Chain) < 2 {
		return nil
	}
	fmt.Fprintln(out)
	levels := [][]string{{"LEVEL", "AUTHORIZATION", "SCOPE", "MODE", "STATE", "LEFT", "PER CALL", "EXPIRES"}}
	for i, l := range answer.Chain {
		levels = append(levels, []string{strconv.Itoa(i + 1), l.AuthorizationID, string(l.ScopeKind), string(l.Mode), string(l.State),
			sats(l.RemainingSats), sats(l.MaxPerCallSats), at(l.ExpiresAt)})
	}
	return table(out, levels)
}

func reservationsTable(out io.Writer, body []byte) error {
	var list api.SpendReservationPage
	if err := json.Unmarshal(body, &list); err != nil {
		return err
	}
	return reservationRows(out, list.Reservations)
}

func reservationText(out io.Writer, body []byte) error {
	var one api.SpendReservationAnswer
	if err := json.Unmarshal(body, &one); err != nil {
		return err
	}
	return reservationRows(out, []api.SpendReservationV1{one.Reservation})
}

func reservationRows(out io.Writer, all []api.SpendReservationV1) error {
	rows := [][]string{{"HELD AT", "RUN", "CALL", "TOOL", "PAYEE", "STATE", "HELD", "SPENT", "RETRY", "AUTHORIZATION", "WHY"}}
	for _, r := range all {
		rows = append(rows, []string{
			at(&r.ReservedAt), r.RunID, r.ToolCallID, told(r.Tool), told(r.Payee), string(r.State), sats(&r.AmountSats), sats(r.CommittedSats),
			string(r.RetryClass), r.AuthorizationID, told(r.FailureReason),
		})
	}
	return table(out, rows)
}

func statementTable(out io.Writer, body []byte) error {
	var page api.SpendStatementPage
	if err := json.Unmarshal(body, &page); err != nil {
		return err
	}
	s := page.Statement
	rows := [][]string{{"TIME (UTC)", "KIND", "RUN", "CALL", "TOOL", "PAYEE", "HOST", "AMOUNT", "BALANCE", "HELD", "AVAILABLE", "PROOF"}}
	balance := func(when time.Time, kind string, b api.SpendStatementV1Balance) {
		rows = append(rows, []string{at(&when), kind, "", "", "", "", "", "", sats(&b.BalanceSats), sats(&b.HeldSats), sats(&b.AvailableSats), ""})
	}
	balance(s.From, "opening balance", s.Opening)
	for _, m := range s.Movements {
		rows = append(rows, []string{
			at(&m.At), string(m.Kind), told(m.RunID), told(m.ToolCallID), told(m.Tool), told(m.Payee), told(m.Host), sats(&m.AmountSats),
			sats(&m.BalanceSats), sats(&m.HeldSats), sats(&m.AvailableSats), told(m.ProofHash),
		})
	}
	balance(s.To, "closing balance", s.Closing)
	if err := table(out, rows); err != nil {
		return err
	}
	t := s.Sums
	_, err := fmt.Fprintf(out, "\n%d movements: issued %d, raised %d, lowered %d, held %d, spent %d, given back %d, overage %d, reversed %d\n", t.Movements,
		t.IssuedSats, t.RaisedSats, t.LoweredSats, t.HeldSats, t.CapturedSats, t.ReleasedSats, t.OverageSats, t.ReversedSats)
	return err
}
