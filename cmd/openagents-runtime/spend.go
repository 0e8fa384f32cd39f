package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/gen/api"
)

// spender is what the spend commands have in common.
type spender struct {
	*target
	json bool
}

// spendCommands issue and change authorizations to spend, and show what became of
// the money.
func (t *target) spendCommands() *cobra.Command {
	s := &spender{target: t}
	spend := &cobra.Command{
		Use: "spend", Short: "Allow spending, and see what was spent",
		Long: "Authorizations say who may spend how much for what; reservations are what is held for calls; a statement " +
			"tells every movement. Amounts are whole sats. Without --user and --guest the commands act as user 1; --user 0 " +
			"acts as an operator for everybody.",
	}
	spend.PersistentFlags().BoolVar(&s.json, "json", false, "print the service's answers instead of tables")
	spend.AddCommand(s.authorize(), s.show(), s.list(), s.amend(), s.revoke(), s.reservations(), s.reconcile(), s.recoverStuck(),
		s.statement(), s.audit())
	return spend
}

// terms are the flags of what an authorization allows. An amount that is
// negative is not given.
type terms struct {
	total, perCall, perHour, perDay, perWeek, perMonth, threshold, maxFee int64
	overage                                                               int32
	tools, hosts, providers, models, payees                               []string
	exhaustion, unknownPrice, notBefore, expires                          string
}

func (f *terms) flags(cmd *cobra.Command) {
	fs := cmd.Flags()
	for _, amount := range []struct {
		to          *int64
		name, usage string
	}{
		{&f.total, "total", "sats that may be spent in all"},
		{&f.perCall, "per-call", "sats of one call at the most"},
		{&f.perHour, "per-hour", "sats of an hour of UTC at the most"},
		{&f.perDay, "per-day", "sats of a day of UTC at the most"},
		{&f.perWeek, "per-week", "sats of a week of UTC at the most"},
		{&f.perMonth, "per-month", "sats of a month of UTC at the most"},
		{&f.threshold, "threshold", "sats above which a person is asked"},
		{&f.maxFee, "max-fee", "sats of routing fees of one payment at the most"},
	} {
		fs.Int64Var(amount.to, amount.name, -1, amount.usage)
		fs.Lookup(amount.name).DefValue = ""
	}
	fs.Int32Var(&f.overage, "max-overage-bps", -1, "hundredths of a percent by which a price may pass what was held")
	fs.Lookup("max-overage-bps").DefValue = ""
	fs.StringSliceVar(&f.tools, "tool", nil, "a tool that may spend; may be repeated, * stands for any text")
	fs.StringSliceVar(&f.hosts, "host", nil, "a host that may be paid; may be repeated, * stands for any text")
	fs.StringSliceVar(&f.providers, "provider", nil, "a provider that may be paid through; may be repeated")
	fs.StringSliceVar(&f.models, "model", nil, "a model that may be paid for; may be repeated")
	fs.StringSliceVar(&f.payees, "payee", nil, "who may be paid; may be repeated")
	fs.StringVar(&f.exhaustion, "on-exhaustion", "", "what a run does when the budget refuses a call: wait, finish or continue")
	fs.StringVar(&f.unknownPrice, "unknown-price", "", "what is said to a call whose price nobody knows: deny or ask")
	fs.StringVar(&f.notBefore, "not-before", "", "from when it counts: a moment, a date, or how long from now")
	fs.StringVar(&f.expires, "expires", "", "until when it counts: a moment, a date, or how long from now")
}

// given is what the flags say, under the names of the contract.
func (f *terms) given() (map[string]any, error) {
	out, lists := map[string]any{}, map[string]any{}
	for name, n := range map[string]int64{
		"max_total_sats": f.total, "max_per_call_sats": f.perCall, "max_per_hour_sats": f.perHour, "max_per_day_sats": f.perDay,
		"max_per_week_sats": f.perWeek, "max_per_month_sats": f.perMonth, "threshold_sats": f.threshold,
	} {
		if n >= 0 {
			out[name] = n
		}
	}
	for name, list := range map[string][]string{
		"allowed_tools": f.tools, "allowed_domains": f.hosts, "allowed_providers": f.providers, "allowed_models": f.models, "allowed_payees": f.payees,
	} {
		if len(list) > 0 {
			lists[name] = list
		}
	}
	if f.maxFee >= 0 {
		lists["max_fee_sats"] = f.maxFee
	}
	if f.overage >= 0 {
		lists["max_overage_bps"] = f.overage
	}
	if len(lists) > 0 {
		out["constraints"] = lists
	}
	for name, text := range map[string]string{"on_exhaustion": f.exhaustion, "unknown_price": f.unknownPrice} {
		if text != "" {
			out[name] = text
		}
	}
	for name, text := range map[string]string{"not_before": f.notBefore, "expires_at": f.expires} {
		if text == "" {
			continue
		}
		at, err := moment(text, time.Now())
		if err != nil {
			return nil, err
		}
		out[name] = at
	}
	return out, nil
}

// moment reads a moment, a date (its beginning in UTC), or a time from now.
func moment(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(d).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no moment: write 2026-02-18T10:00:00Z, 2026-02-18, or 24h for a day from now", text)
}

// as gives values a type of the contract.
func as[T any](values map[string]any) (T, error) {
	var to T
	raw, err := json.Marshal(values)
	if err != nil {
		return to, err
	}
	return to, json.Unmarshal(raw, &to)
}

func (s *spender) authorize() *cobra.Command {
	var f terms
	var file, id, scope, run, thread, autopilot, parent, mode, metadata string
	cmd := s.with(&cobra.Command{
		Use: "authorize", Short: "Issue an authorization to spend", Args: cobra.NoArgs,
		Example: "  openagents-runtime spend authorize --run RUN_ID --total 5000 --per-call 1000 --expires 24h\n" +
			"  openagents-runtime spend authorize --file grant.json",
	}, func(cmd *cobra.Command, c *client, _ []string) error {
		var body api.CreateSpendAuthorizationRequest
		if file != "" {
			if err := readJSON(cmd, file, &body.Authorization); err != nil {
				return err
			}
		} else {
			values, err := f.given()
			if err != nil {
				return err
			}
			if id == "" {
				id = "auth_" + strings.ReplaceAll(uuid.NewString(), "-", "")
			}
			if scope == "" {
				scope = scopeOf(run, thread, autopilot)
			}
			values["authorization_id"], values["scope_kind"], values["mode"] = id, scope, mode
			for name, text := range map[string]string{"run_id": run, "thread_id": thread, "autopilot_id": autopilot, "parent_authorization_id": parent} {
				if text != "" {
					values[name] = text
				}
			}
			if metadata != "" {
				var kept map[string]any
				if err := json.Unmarshal([]byte(metadata), &kept); err != nil {
					return fmt.Errorf("--metadata must be a JSON object: %w", err)
				}
				values["metadata"] = kept
			}
			if body.Authorization, err = as[api.SpendGrantV1](values); err != nil {
				return err
			}
		}
		r, err := c.CreateSpendAuthorizationWithResponse(cmd.Context(), &api.CreateSpendAuthorizationParams{}, body)
		if err != nil {
			return err
		}
		return s.answer(cmd, r.StatusCode(), r.GetBody(), authorizationText)
	})
	f.flags(cmd)
	cmd.Flags().StringVar(&file, "file", "", "a JSON file with all of it; - is the input")
	cmd.Flags().StringVar(&id, "id", "", "the authorization's id; one is made when empty")
	cmd.Flags().StringVar(&scope, "scope", "", "organisation, owner, autopilot, thread, run or system; the narrowest that is named when empty")
	cmd.Flags().StringVar(&run, "run", "", "the run that may spend it")
	cmd.Flags().StringVar(&thread, "thread", "", "the thread whose runs may spend it")
	cmd.Flags().StringVar(&autopilot, "autopilot", "", "the autopilot whose runs may spend it")
	cmd.Flags().StringVar(&parent, "parent", "", "the authorization that it is a part of")
	cmd.Flags().StringVar(&mode, "mode", "delegated_budget", "interactive, delegated_budget, delegated_budget_with_threshold, deny or system")
	cmd.Flags().StringVar(&metadata, "metadata", "", "a JSON object to keep with it")
	return cmd
}

// scopeOf is the narrowest scope that is named.
func scopeOf(run, thread, autopilot string) string {
	switch {
	case run != "":
		return "run"
	case thread != "":
		return "thread"
	case autopilot != "":
		return "autopilot"
	}
	return "owner"
}

func (s *spender) show() *cobra.Command {
	return s.with(&cobra.Command{Use: "show AUTHORIZATION_ID", Short: "Show an authorization and what its chain allows", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.GetSpendAuthorizationWithResponse(cmd.Context(), args[0], &api.GetSpendAuthorizationParams{})
			if err != nil {
				return err
			}
			return s.answer(cmd, r.StatusCode(), r.GetBody(), authorizationText)
		})
}

func (s *spender) list() *cobra.Command {
	var limit int32
	var page, state, owner, parent, run, thread string
	cmd := s.with(&cobra.Command{Use: "list", Short: "List authorizations, newest first", Args: cobra.NoArgs},
		func(cmd *cobra.Command, c *client, _ []string) error {
			r, err := c.ListSpendAuthorizationsWithResponse(cmd.Context(), &api.ListSpendAuthorizationsParams{
				State: (*api.SpendAuthorizationState)(optional(state)), Owner: optional(owner), ParentAuthorizationID: optional(parent),
				RunID: optional(run), ThreadID: optional(thread), Limit: &limit, PageToken: optional(page),
			})
			if err != nil {
				return err
			}
			return s.answer(cmd, r.StatusCode(), r.GetBody(), authorizationsTable)
		})
	cmd.Flags().StringVar(&state, "state", "", "only those in this state: not_started, live, expired or revoked")
	cmd.Flags().StringVar(&owner, "owner", "", "only those of this owner: user:<id>, guest:<scope> or system")
	cmd.Flags().StringVar(&parent, "parent", "", "only those that are a part of this one")
	cmd.Flags().StringVar(&run, "run", "", "only those of this run")
	cmd.Flags().StringVar(&thread, "thread", "", "only those of this thread")
	pageFlags(cmd, &limit, &page, 50, "authorizations per page, 1 to 200")
	return cmd
}

func pageFlags(cmd *cobra.Command, limit *int32, page *string, size int32, usage string) {
	cmd.Flags().Int32Var(limit, "limit", size, usage)
	cmd.Flags().StringVar(page, "page", "", "the nextPageToken of the page before")
}

func (s *spender) amend() *cobra.Command {
	var f terms
	var revision int64
	var reason string
	var clear []string
	cmd := s.with(&cobra.Command{
		Use: "amend AUTHORIZATION_ID", Short: "Change what an authorization allows", Args: cobra.ExactArgs(1),
		Long: "Changes the terms that are given and leaves the others. The lists of --tool, --host, --provider, --model and " +
			"--payee, with --max-fee and --max-overage-bps, are replaced together.",
		Example: "  openagents-runtime spend amend AUTHORIZATION_ID --total 8000 --reason 'more sources'",
	}, func(cmd *cobra.Command, c *client, args []string) error {
		values, err := f.given()
		if err != nil {
			return err
		}
		if len(clear) > 0 {
			values["clear"] = clear
		}
		if len(values) == 0 {
			return errors.New("say what is to change: openagents-runtime spend amend --help lists the terms")
		}
		if revision == 0 {
			r, err := c.GetSpendAuthorizationWithResponse(cmd.Context(), args[0], &api.GetSpendAuthorizationParams{})
			if err != nil {
				return err
			}
			if r.StatusCode() != http.StatusOK {
				return answerError(r.StatusCode(), r.GetBody())
			}
			revision = r.JSON200.Authorization.Revision
		}
		body := api.AmendSpendAuthorizationRequest{Revision: revision, Reason: reason}
		if body.Changes, err = as[api.SpendGrantV1Changes](values); err != nil {
			return err
		}
		r, err := c.AmendSpendAuthorizationWithResponse(cmd.Context(), args[0], &api.AmendSpendAuthorizationParams{}, body)
		if err != nil {
			return err
		}
		return s.answer(cmd, r.StatusCode(), r.GetBody(), authorizationText)
	})
	f.flags(cmd)
	cmd.Flags().Int64Var(&revision, "revision", 0, "change it only if it has this revision; the present one when 0")
	cmd.Flags().StringVar(&reason, "reason", "", "a sentence for people")
	cmd.Flags().StringSliceVar(&clear, "clear", nil, "a term to take away, such as max_per_day_sats; may be repeated")
	cobra.CheckErr(cmd.MarkFlagRequired("reason"))
	return cmd
}

func (s *spender) revoke() *cobra.Command {
	var reason string
	cmd := s.with(&cobra.Command{Use: "revoke AUTHORIZATION_ID", Short: "Let nothing more be held under an authorization", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.RevokeSpendAuthorizationWithResponse(cmd.Context(), args[0], &api.RevokeSpendAuthorizationParams{},
				api.RevokeSpendAuthorizationRequest{Reason: optional(reason)})
			if err != nil {
				return err
			}
			return s.answer(cmd, r.StatusCode(), r.GetBody(), authorizationText)
		})
	cmd.Flags().StringVar(&reason, "reason", "", "a sentence for people")
	return cmd
}
