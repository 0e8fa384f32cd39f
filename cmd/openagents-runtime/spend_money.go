package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/gen/api"
)

func (s *spender) reservations() *cobra.Command {
	var limit int32
	var page, state, run, authorization string
	cmd := s.with(&cobra.Command{Use: "reservations", Short: "List what is held for calls, newest first", Args: cobra.NoArgs,
		Example: "  openagents-runtime spend reservations --user 0 --state reconcile_required"},
		func(cmd *cobra.Command, c *client, _ []string) error {
			only := (*api.SpendReservationState)(optional(state))
			if authorization != "" {
				r, err := c.ListSpendReservationsOfWithResponse(cmd.Context(), authorization, &api.ListSpendReservationsOfParams{
					State: only, Limit: &limit, PageToken: optional(page),
				})
				if err != nil {
					return err
				}
				return s.answer(cmd, r.StatusCode(), r.GetBody(), reservationsTable)
			}
			r, err := c.ListSpendReservationsWithResponse(cmd.Context(), &api.ListSpendReservationsParams{
				State: only, RunID: optional(run), Limit: &limit, PageToken: optional(page),
			})
			if err != nil {
				return err
			}
			return s.answer(cmd, r.StatusCode(), r.GetBody(), reservationsTable)
		})
	cmd.Flags().StringVar(&authorization, "authorization", "", "only those of this authorization and of all below it")
	cmd.Flags().StringVar(&state, "state", "", "only those in this state: reserved, committed, released or reconcile_required")
	cmd.Flags().StringVar(&run, "run", "", "only those of this run")
	cmd.MarkFlagsMutuallyExclusive("authorization", "run")
	pageFlags(cmd, &limit, &page, 50, "reservations per page, 1 to 200")
	return cmd
}

func (s *spender) reconcile() *cobra.Command {
	var outcome, reason, evidence string
	var amount int64
	cmd := s.with(&cobra.Command{
		Use: "reconcile RUN_ID CALL_ID", Short: "Say what became of a call whose outcome is unknown", Args: cobra.ExactArgs(2),
		Example: "  openagents-runtime spend reconcile RUN_ID CALL_ID --outcome commit --reason 'the node lists it as settled' \\\n" +
			"    --evidence '{\"lookup\":\"SETTLED\"}'",
	}, func(cmd *cobra.Command, c *client, args []string) error {
		body := api.ReconcileSpendReservationRequest{Outcome: api.ReconcileSpendReservationRequestOutcome(outcome), Reason: reason}
		if amount >= 0 {
			body.AmountSats = &amount
		}
		if err := json.Unmarshal([]byte(evidence), &body.Evidence); err != nil {
			return fmt.Errorf("--evidence must be a JSON object: %w", err)
		}
		r, err := c.ReconcileSpendReservationWithResponse(cmd.Context(), args[0], args[1], &api.ReconcileSpendReservationParams{}, body)
		if err != nil {
			return err
		}
		return s.answer(cmd, r.StatusCode(), r.GetBody(), reservationText)
	})
	cmd.Flags().StringVar(&outcome, "outcome", "", "commit: it was paid; release: it was not")
	cmd.Flags().Int64Var(&amount, "amount", -1, "sats that it came to; all that is held when not given")
	cmd.Flags().Lookup("amount").DefValue = ""
	cmd.Flags().StringVar(&reason, "reason", "", "a sentence for people")
	cmd.Flags().StringVar(&evidence, "evidence", "", "what shows it, as a JSON object")
	for _, name := range []string{"outcome", "reason", "evidence"} {
		cobra.CheckErr(cmd.MarkFlagRequired(name))
	}
	return cmd
}

func (s *spender) recoverStuck() *cobra.Command {
	var batch int32
	cmd := s.with(&cobra.Command{
		Use: "recover-stuck", Short: "Settle what executors left behind", Args: cobra.NoArgs,
		Long: "Releases what is held for calls that nobody is at work on and that the provider was never asked for, and has the " +
			"others looked up or marked reconcile_required. It may be run at any time and as often as wanted.",
	}, func(cmd *cobra.Command, c *client, _ []string) error {
		var total api.RecoverStuckSpendAnswer
		line := progress{out: cmd.ErrOrStderr(), on: isTerminal(cmd.ErrOrStderr())}
		for {
			r, err := c.RecoverStuckSpendWithResponse(cmd.Context(), &api.RecoverStuckSpendParams{}, api.RecoverStuckSpendRequest{Limit: &batch})
			if err != nil {
				line.end()
				return err
			}
			if r.StatusCode() != http.StatusOK {
				line.end()
				return answerError(r.StatusCode(), r.GetBody())
			}
			done := r.JSON200
			total.Checked += done.Checked
			total.Released += done.Released
			total.Marked += done.Marked
			total.Committed += done.Committed
			total.Left = done.Left
			line.show(total.Checked, total.Checked+total.Left)
			if done.Left == 0 || done.Checked == 0 {
				break
			}
		}
		line.end()
		if s.json {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(total)
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d looked at: %d given back, %d spent, %d whose outcome is unknown; %d left\n",
			total.Checked, total.Released, total.Committed, total.Marked, total.Left)
		return err
	})
	cmd.Flags().Int32Var(&batch, "batch", 50, "reservations per request, 1 to 1000")
	return cmd
}

// progress is a line that is written over as work goes on; on is false where
// nobody watches.
type progress struct {
	out io.Writer
	on  bool
}

func (p progress) show(done, of int64) {
	if !p.on {
		return
	}
	const width = 30
	full := int64(width)
	if of > 0 {
		full = width * done / of
	}
	fmt.Fprintf(p.out, "\r[")
	for i := range int64(width) {
		if i < full {
			fmt.Fprint(p.out, "#")
		} else {
			fmt.Fprint(p.out, ".")
		}
	}
	fmt.Fprintf(p.out, "] %d of %d", done, of)
}

func (p progress) end() {
	if p.on {
		fmt.Fprintln(p.out)
	}
}

// isTerminal says whether somebody watches what is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (s *spender) statement() *cobra.Command {
	var from, to, page string
	var limit int32
	var csv bool
	cmd := s.with(&cobra.Command{
		Use: "statement AUTHORIZATION_ID", Short: "Print the movements of an authorization and of all below it", Args: cobra.ExactArgs(1),
		Example: "  openagents-runtime spend statement AUTHORIZATION_ID --from 2026-02-01 --to 2026-03-01 --csv > february.csv",
	}, func(cmd *cobra.Command, c *client, args []string) error {
		begin, err := boundary(from)
		if err != nil {
			return err
		}
		end, err := boundary(to)
		if err != nil {
			return err
		}
		if csv {
			return exportStatement(cmd, c, args[0], api.ExportSpendStatementParams{From: begin, To: end, PageToken: optional(page)})
		}
		r, err := c.GetSpendStatementWithResponse(cmd.Context(), args[0], &api.GetSpendStatementParams{From: begin, To: end, Limit: &limit, PageToken: optional(page)})
		if err != nil {
			return err
		}
		return s.answer(cmd, r.StatusCode(), r.GetBody(), statementTable)
	})
	cmd.Flags().StringVar(&from, "from", "", "the first moment: a moment or a date of UTC; the issue when empty")
	cmd.Flags().StringVar(&to, "to", "", "the end, not included: a moment or a date of UTC; now when empty")
	cmd.Flags().BoolVar(&csv, "csv", false, "print all of it as comma-separated values, for a spreadsheet")
	pageFlags(cmd, &limit, &page, 200, "movements per page, 1 to 1000")
	return cmd
}

func boundary(text string) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	at, err := moment(text, time.Now())
	return &at, err
}

// exportStatement prints a statement page after page, which makes one table.
func exportStatement(cmd *cobra.Command, c *client, id string, p api.ExportSpendStatementParams) error {
	for {
		r, err := c.ExportSpendStatementWithResponse(cmd.Context(), id, &p)
		if err != nil {
			return err
		}
		if r.StatusCode() != http.StatusOK {
			return answerError(r.StatusCode(), r.GetBody())
		}
		if _, err := cmd.OutOrStdout().Write(r.GetBody()); err != nil {
			return err
		}
		next := r.HTTPResponse.Header.Get("x-oa-next-page-token")
		if next == "" {
			return nil
		}
		p.PageToken = &next
	}
}
