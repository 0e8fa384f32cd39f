package main

import (
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/gen/api"
)

// toolCommands list tools and call them.
func (t *target) toolCommands() *cobra.Command {
	tools := &cobra.Command{Use: "tool", Short: "List the tools of a running service, and have a run call them"}
	tools.AddCommand(t.toolList(), t.toolExecute(), t.toolTask(), t.toolTasks(), t.toolCancel())
	return tools
}

func (t *target) toolList() *cobra.Command {
	var run string
	cmd := t.with(&cobra.Command{Use: "list", Short: "List the tools", Args: cobra.NoArgs},
		func(cmd *cobra.Command, c *client, _ []string) error {
			r, err := c.ListToolsWithResponse(cmd.Context(), &api.ListToolsParams{RunID: optional(run)})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	cmd.Flags().StringVar(&run, "run", "", "the run whose client tools and policy count")
	return cmd
}

func (t *target) toolExecute() *cobra.Command {
	var call string
	var wait int32
	cmd := t.with(&cobra.Command{Use: "execute RUN_ID TOOL [INPUT]", Short: "Have a run call a tool; INPUT is a JSON object", Args: cobra.RangeArgs(2, 3)},
		func(cmd *cobra.Command, c *client, args []string) error {
			input := map[string]any{}
			if len(args) > 2 {
				if err := json.Unmarshal([]byte(args[2]), &input); err != nil {
					return fmt.Errorf("INPUT must be a JSON object, in quotes for the shell: %w", err)
				}
			}
			if call == "" {
				call = "cli-" + uuid.NewString()
			}
			r, err := c.ExecuteToolWithResponse(cmd.Context(), &api.ExecuteToolParams{Wait: &wait},
				api.ExecuteToolRequest{RunID: args[0], ToolCallID: call, Tool: args[1], Input: input})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	cmd.Flags().StringVar(&call, "call", "", "the toolCallId; the same again answers the same task")
	cmd.Flags().Int32Var(&wait, "wait", 10_000, "milliseconds to wait for its end")
	return cmd
}

func (t *target) toolTask() *cobra.Command {
	var run string
	cmd := t.with(&cobra.Command{Use: "task CALL_ID", Short: "Show a tool call", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.GetToolTaskWithResponse(cmd.Context(), args[0], &api.GetToolTaskParams{RunID: optional(run)})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	cmd.Flags().StringVar(&run, "run", "", "the run, when calls of several have the id")
	return cmd
}

func (t *target) toolTasks() *cobra.Command {
	var limit int32
	var page string
	cmd := t.with(&cobra.Command{Use: "tasks RUN_ID", Short: "List a run's tool calls, newest first", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.ListToolTasksWithResponse(cmd.Context(), args[0], &api.ListToolTasksParams{Limit: &limit, PageToken: optional(page)})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	cmd.Flags().Int32Var(&limit, "limit", 50, "calls per page, 1 to 200")
	cmd.Flags().StringVar(&page, "page", "", "the nextPageToken of the page before")
	return cmd
}

func (t *target) toolCancel() *cobra.Command {
	var run, reason string
	cmd := t.with(&cobra.Command{Use: "cancel CALL_ID", Short: "Ask a tool call to stop", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.CancelToolTaskWithResponse(cmd.Context(), args[0], &api.CancelToolTaskParams{RunID: optional(run)},
				api.CancelToolTaskRequest{Reason: optional(reason)})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	cmd.Flags().StringVar(&run, "run", "", "the run, when calls of several have the id")
	cmd.Flags().StringVar(&reason, "reason", "", "a sentence for people")
	return cmd
}
