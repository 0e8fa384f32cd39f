package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/mcp"
)

type mcpConfig struct {
	Servers string `env:"RUNTIME_MCP_SERVERS" help:"file with the servers that speak MCP whose tools runs may call; empty for none"`
}

// mcp are the servers of the configuration. Their secrets are those of
// RUNTIME_TOOL_SECRETS: a session serves every run, so it acts for nobody.
func (c config) mcp(logger *slog.Logger, secrets *secret.Store, guard egress.GuardConfig) (mcp.Config, error) {
	servers, err := mcp.Load(c.MCP.Servers)
	if err != nil {
		return mcp.Config{}, fmt.Errorf("RUNTIME_MCP_SERVERS: %w", err)
	}
	return mcp.Config{
		Servers: servers, Client: mcp.Guarded(guard), Logger: logger, Version: version,
		Secret: func(ctx context.Context, name string) (secret.Value, error) {
			return secrets.Get(ctx, secret.Scope{Provider: name})
		},
	}, nil
}

// mcpServers are the servers that the catalog's tools come from, beside the
// program's own.
func (s *service) mcpServers() (*mcp.Servers, error) {
	c, err := s.c.mcp(s.logger, s.secrets, egress.GuardConfig{
		Exceptions: s.c.Tools.EgressAllow, Refused: s.refused("mcp"),
	})
	if err != nil {
		return nil, err
	}
	own, err := s.catalog.For(nil) // nothing else is in it yet
	if err != nil {
		return nil, err
	}
	c.Taken = func(name string) bool {
		_, taken := own.Spec(name)
		return taken
	}
	c.Changed = func(tools []tool.Tool) {
		if err := s.catalog.Set("mcp", tools); err != nil {
			s.logger.Error("the tools of MCP servers are not taken", "error", err.Error())
		}
	}
	return mcp.New(c), nil
}

func mcpCommand() *cobra.Command {
	root := &cobra.Command{Use: "mcp", Short: "Look at the servers that speak MCP"}
	root.AddCommand(mcpExampleCommand())
	for _, sub := range []struct {
		use, short string
		show       func(io.Writer, []mcp.Status) error
	}{
		{"list", "Connect to the servers and list the tools that are taken", listMCP},
		{"check", "Connect to the servers and print as JSON what is made of them, with what to pin", func(w io.Writer, all []mcp.Status) error {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			e.SetEscapeHTML(false)
			return e.Encode(all)
		}},
	} {
		root.AddCommand(&cobra.Command{
			Use: sub.use + " [FILE]", Short: sub.short, Args: cobra.MaximumNArgs(1),
			Long: sub.short + ". FILE is RUNTIME_MCP_SERVERS when left out. Fails when a server does not answer or a tool is refused.",
			RunE: func(cmd *cobra.Command, args []string) error {
				return lookAtMCP(cmd, args, sub.show)
			},
		})
	}
	return root
}

func lookAtMCP(cmd *cobra.Command, args []string, show func(io.Writer, []mcp.Status) error) error {
	c, err := readConfig()
	if err != nil {
		return err
	}
	if len(args) > 0 {
		c.MCP.Servers = args[0]
	}
	if c.MCP.Servers == "" {
		return errors.New("give a file, or set RUNTIME_MCP_SERVERS")
	}
	static, err := secret.ParseStatic(c.Tools.Secrets)
	if err != nil {
		return fmt.Errorf("RUNTIME_TOOL_SECRETS: %w", err)
	}
	secrets, err := secret.New(secret.Config{Static: static, Register: func(s string) { redact.Know(s) }})
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	m, err := c.mcp(logger, secrets, egress.GuardConfig{Exceptions: c.Tools.EgressAllow})
	if err != nil {
		return err
	}
	servers := mcp.New(m)
	defer servers.Close()
	_, failed := servers.Once(cmd.Context())
	all := servers.Status()
	if err := show(cmd.OutOrStdout(), all); err != nil {
		return err
	}
	for _, s := range all {
		if len(s.Refused) > 0 {
			failed = errors.Join(failed, fmt.Errorf("MCP server %s: %d tools are refused", s.Name, len(s.Refused)))
		}
	}
	return failed
}

func listMCP(w io.Writer, all []mcp.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range all {
		state := "not connected: " + s.Problem
		if s.Connected {
			state = cmp.Or(s.Software, "connected") + ", MCP " + s.Protocol
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Name, s.Transport, state)
		for _, line := range s.Stderr {
			fmt.Fprintf(t, "  its stderr: %s\n", line)
		}
		for _, each := range s.Tools {
			decision := []string{"reads", string(each.Boundary)}
			if each.Writes {
				decision[0] = "writes"
			}
			if each.Approval {
				decision = append(decision, "needs approval")
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\n", each.Name, strings.Join(decision, ", "), each.Title)
		}
		for _, r := range s.Refused {
			fmt.Fprintf(t, "  %s\trefused\t%s\n", r.Name, r.Why)
		}
		if s.Ignored > 0 {
			fmt.Fprintf(t, "  and %d that are not taken\t\t\n", s.Ignored)
		}
	}
	return t.Flush()
}
