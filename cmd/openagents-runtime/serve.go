package main

import (
	"github.com/spf13/cobra"
)

func serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve the API and execute runs",
		Long: "Serves the API and the operations listener and executes runs, until SIGTERM or SIGINT. " +
			"The database must be migrated. `openagents-runtime config` lists the settings.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := readConfig()
			if err != nil {
				return err
			}
			s, err := newService(cmd.Context(), c, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			info := s.model.Info()
			s.logger.Info("serving", "api", s.apiAddr.Addr().String(), "ops", s.opsAddr.Addr().String(),
				"model_provider", info.Provider, "model", info.Model, "version", version, "env", c.Env)
			return s.run(cmd.Context())
		},
	}
}
