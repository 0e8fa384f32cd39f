package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

func verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify RUN_ID…",
		Short: "Recompute the hash chains of runs from the database",
		Long: "Reads the logs of runs from DATABASE_URL, without a service, and recomputes their chains from the first " +
			"event that is kept to the head. Fails when one does not verify, and names the first bad event.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := readConfig()
			if err != nil {
				return err
			}
			if c.DatabaseURL == "" {
				return errNoDatabase
			}
			ctx := cmd.Context()
			pool, err := pg.Open(ctx, c.pool(1, "verify"))
			if err != nil {
				return err
			}
			defer pool.Close()
			var broken []error
			for _, id := range ids {
				r, err := run.Get(ctx, pool, run.Everybody, id)
				if err != nil {
					return err
				}
				head, err := runlog.Verify(ctx, pool, r.RunKey, r.RunID)
				var chain *runlog.ChainError
				switch {
				case errors.As(err, &chain):
					broken = append(broken, fmt.Errorf("run %s: %w", id, err))
				case err != nil:
					return err
				default:
					fmt.Fprintf(cmd.OutOrStdout(), "%s: the chain verifies up to seq %d\n", id, head)
				}
			}
			return errors.Join(broken...)
		},
	}
}
