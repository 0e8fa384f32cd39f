package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
)

// audit asks the database, without a service.
func (s *spender) audit() *cobra.Command {
	return &cobra.Command{
		Use: "audit", Short: "Compare what is spent and held with the ledger, from the database", Args: cobra.NoArgs,
		Long: "Reads DATABASE_URL, without a service, and lists the authorizations whose counters are not the sums of the ledger " +
			"and of the reservations. Fails when there is one.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := readConfig()
			if err != nil {
				return err
			}
			if c.DatabaseURL == "" {
				return errNoDatabase
			}
			pool, err := pg.Open(cmd.Context(), c.pool(1, "spend-audit"))
			if err != nil {
				return err
			}
			defer pool.Close()
			drift, err := spend.Drift(cmd.Context(), pool)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			rows := [][]string{{"AUTHORIZATION", "SPENT", "LEDGER", "CALLS", "HELD", "LEDGER", "CALLS", "PERIODS", "OVERAGE", "LEDGER", "TOTAL", "LEDGER"}}
			found := make([]map[string]any, 0, len(drift))
			for _, d := range drift {
				row := []string{d.AuthorizationID}
				for _, n := range []*int64{
					&d.SpentSats, &d.LedgerSpentSats, &d.CallsSpentSats, &d.ReservedSats, &d.LedgerReservedSats, &d.CallsReservedSats,
					&d.PeriodHeldSats, &d.OverageSats, &d.LedgerOverageSats, d.MaxTotalSats, &d.LedgerMaxTotalSats,
				} {
					row = append(row, sats(n))
				}
				rows = append(rows, row)
				found = append(found, map[string]any{
					"authorization_id": d.AuthorizationID, "spent_sats": d.SpentSats, "ledger_spent_sats": d.LedgerSpentSats,
					"calls_spent_sats": d.CallsSpentSats, "reserved_sats": d.ReservedSats, "ledger_reserved_sats": d.LedgerReservedSats,
					"calls_reserved_sats": d.CallsReservedSats, "period_held_sats": d.PeriodHeldSats, "overage_sats": d.OverageSats,
					"ledger_overage_sats": d.LedgerOverageSats, "max_total_sats": d.MaxTotalSats, "ledger_max_total_sats": d.LedgerMaxTotalSats,
				})
			}
			switch {
			case s.json:
				err = json.NewEncoder(out).Encode(map[string]any{"drift": found})
			case len(drift) == 0:
				_, err = fmt.Fprintln(out, "every counter is the sum of its ledger and of its calls")
			default:
				err = table(out, rows)
			}
			if err == nil && len(drift) > 0 {
				err = fmt.Errorf("authorizations that are not what their ledger says: %d", len(drift))
			}
			return err
		},
	}
}
