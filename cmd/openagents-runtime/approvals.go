package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/gen/api"
)

// approvalCommands show what waits for a person, and decide it.
func (t *target) approvalCommands() *cobra.Command {
	approvals := &cobra.Command{Use: "approval", Short: "See what waits for a decision, and decide"}
	approvals.AddCommand(t.approvalList(), t.approvalGet(),
		t.approvalDecide("approve", "Approve what is asked", api.DecideApprovalRequestDecisionApproved),
		t.approvalDecide("reject", "Refuse what is asked", api.DecideApprovalRequestDecisionRejected))
	return approvals
}

func (t *target) approvalList() *cobra.Command {
	var limit int32
	var page, state, thread, run string
	cmd := t.with(&cobra.Command{Use: "list", Short: "List what the principal is asked, newest first", Args: cobra.NoArgs},
		func(cmd *cobra.Command, c *client, _ []string) error {
			r, err := c.ListApprovalsWithResponse(cmd.Context(), &api.ListApprovalsParams{
				State: (*api.ApprovalState)(optional(state)), ThreadID: optional(thread), RunID: optional(run), Limit: &limit, PageToken: optional(page),
			})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	cmd.Flags().StringVar(&state, "state", "pending", "only those in this state; all when empty")
	cmd.Flags().StringVar(&thread, "thread", "", "only those of this thread")
	cmd.Flags().StringVar(&run, "run", "", "only those of this run")
	cmd.Flags().Int32Var(&limit, "limit", 50, "approvals per page, 1 to 200")
	cmd.Flags().StringVar(&page, "page", "", "the nextPageToken of the page before")
	return cmd
}

func (t *target) approvalGet() *cobra.Command {
	return t.with(&cobra.Command{Use: "get APPROVAL_ID", Short: "Show an approval", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.GetApprovalWithResponse(cmd.Context(), args[0], &api.GetApprovalParams{})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
}

func (t *target) approvalDecide(name, short string, decision api.DecideApprovalRequestDecision) *cobra.Command {
	var reason, args, policy, content string
	cmd := t.with(&cobra.Command{Use: name + " APPROVAL_ID", Short: short, Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, named []string) error {
			d := api.DecideApprovalRequest{Decision: decision, ArgsHash: optional(args), PolicyHash: optional(policy), Reason: optional(reason)}
			if content != "" {
				if err := json.Unmarshal([]byte(content), &d.Content); err != nil {
					return fmt.Errorf("--content must be a JSON object, in quotes for the shell: %w", err)
				}
			}
			r, err := c.DecideApprovalWithResponse(cmd.Context(), named[0], &api.DecideApprovalParams{}, d)
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	cmd.Flags().StringVar(&reason, "reason", "", "a sentence for people")
	cmd.Flags().StringVar(&args, "args-hash", "", "decide only if the approval has this argsHash")
	if decision == api.DecideApprovalRequestDecisionApproved {
		cmd.Flags().StringVar(&content, "content", "", "what the question's schema asks for, a JSON object")
	}
	cmd.Flags().StringVar(&policy, "policy-hash", "", "decide only if the approval has this policyHash")
	return cmd
}
