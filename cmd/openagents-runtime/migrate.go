package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/migrations"
)

func migrateCommand() *cobra.Command {
	var verify bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema up to this binary's",
		Long: "Applies the migrations that are missing, once, however many processes try. With --verify it " +
			"changes nothing and fails unless the schema is exactly this binary's.",
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
				if err := pg.Verify(cmd.Context(), c.DatabaseURL, migrations.FS); err != nil {
					return err
				}
				fmt.Fprintln(out, "the schema is up to date")
				return nil
			}
			return pg.Migrate(cmd.Context(), c.DatabaseURL, migrations.FS, func(line string) { fmt.Fprintln(out, line) })
		},
	}
	cmd.Flags().BoolVar(&verify, "verify", false, "check only")
	return cmd
}

var errNoDatabase = errors.New("DATABASE_URL is not set; for a private database on this machine use `openagents-runtime dev`")
