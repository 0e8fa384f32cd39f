package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/migrations"
)

func migrateCommand() *cobra.Command {
	var verify bool
	var role string
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema up to this binary's",
		Long: "Applies the migrations that are missing, once, however many processes try. With --verify it " +
			"changes nothing and fails unless the schema is exactly this binary's. With --grant it then gives a role " +
			"what serving needs, and takes from it what it has beyond that.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := readConfig()
			if err != nil {
				return err
			}
			if c.DatabaseURL == "" {
				return errNoDatabase
			}
			out := cmd.OutOrStdout()
			if verify {
				if err := verifySchema(cmd.Context(), c.DatabaseURL); err != nil {
					return err
				}
				fmt.Fprintln(out, "the schema is up to date")
				return nil
			}
			err = pg.Migrate(cmd.Context(), c.DatabaseURL, migrations.FS, func(line string) { fmt.Fprintln(out, line) })
			if err != nil || role == "" {
				return err
			}
			return pg.Grant(cmd.Context(), c.DatabaseURL, role)
		},
	}
	cmd.Flags().BoolVar(&verify, "verify", false, "check only")
	cmd.Flags().StringVar(&role, "grant", "", "a role that serves")
	cmd.MarkFlagsMutuallyExclusive("verify", "grant")
	return cmd
}

// verifySchema fails unless the database's schema is this binary's, and says
// what to do where a migration would mend it.
func verifySchema(ctx context.Context, databaseURL string) error {
	err := pg.Verify(ctx, databaseURL, migrations.FS)
	var differs *pg.SchemaError
	if errors.As(err, &differs) && len(differs.Pending) > 0 {
		return fmt.Errorf("%w; run `openagents-runtime migrate`", err)
	}
	return err
}

var errNoDatabase = errors.New("DATABASE_URL is not set; for a private database on this machine use `openagents-runtime dev`")
