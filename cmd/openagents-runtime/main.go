// Command openagents-runtime executes long-running agents and lets their runs
// be followed.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "openagents-runtime",
		Short:         "The runtime for autonomous agents",
		Long:          "openagents-runtime executes long-running agents and writes every fact about a run into one log, which any process streams.",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(serveCommand(), devCommand(), migrateCommand(), verifyCommand(), configCommand(), mcpCommand())
	cmd.AddCommand(clientCommands()...)
	return cmd
}
