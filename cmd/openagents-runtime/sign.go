package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

// sign prints the headers of one signed request, for curl and scripts.
func (t *target) sign() *cobra.Command {
	var bodyFile, scope string
	cmd := &cobra.Command{
		Use:   "sign METHOD TARGET",
		Short: "Print the headers of one signed request, for curl",
		Long:  "Prints the headers that sign one request; TARGET is its path and ?query. A token is used once and lives a minute.",
		Example: "  curl -H @<(openagents-runtime sign GET /internal/v1/runs) http://127.0.0.1:4000/internal/v1/runs\n" +
			"  openagents-runtime sign POST /internal/v1/runs --body start.json",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.signer()
			if err != nil {
				return err
			}
			s.scope = auth.Scope(scope)
			var body []byte
			switch bodyFile {
			case "":
			case "-":
				body, err = io.ReadAll(cmd.InOrStdin())
			default:
				body, err = os.ReadFile(bodyFile)
			}
			if err != nil {
				return err
			}
			h, err := s.headers(args[0], args[1], body)
			if err != nil {
				return err
			}
			for _, name := range []string{auth.SignatureHeader, auth.UserHeader, auth.GuestHeader} {
				if v := h.Get(name); v != "" {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", name, v)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&bodyFile, "body", "", "the file with the body's exact bytes; - for standard input")
	cmd.Flags().StringVar(&scope, "scope", string(auth.Operator), "read, service or operator")
	return cmd
}
