package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/internal/devdb"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/migrations"
)

func devCommand() *cobra.Command {
	var question string
	var databaseOnly bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything on this machine and show a first run",
		Long: "Starts a private Postgres (or uses DATABASE_URL), migrates it, serves on loopback, streams a run that uses " +
			"tools into the terminal, and goes on serving until Ctrl-C.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if databaseOnly {
				return devDatabaseOnly(cmd.Context(), cmd.OutOrStdout())
			}
			return dev(cmd.Context(), cmd.OutOrStdout(), cmd.InOrStdin(), question)
		},
	}
	cmd.Flags().StringVar(&question, "ask", "", "ask the first run this, in place of showing tools")
	cmd.Flags().BoolVar(&databaseOnly, "database-only", false, "start and migrate the database, print its URL, and wait")
	return cmd
}

// devDatabaseOnly keeps a migrated database up until ctx ends.
func devDatabaseOnly(ctx context.Context, out io.Writer) error {
	c, stop, err := devBase(ctx, out)
	if err != nil {
		return err
	}
	defer stop()
	fmt.Fprintf(out, "\nDATABASE_URL=%s\n", c.DatabaseURL)
	<-ctx.Done()
	return nil
}

// devBase reads the settings and brings up a migrated database.
func devBase(ctx context.Context, out io.Writer) (config, func(), error) {
	if err := devEnvironment(); err != nil {
		return config{}, nil, err
	}
	c, err := readConfig()
	if err != nil {
		return c, nil, err
	}
	stop, err := devDatabase(ctx, out, &c)
	if err != nil {
		return c, nil, err
	}
	progress := func(line string) { fmt.Fprintln(out, "database:", line) }
	if err := pg.Migrate(ctx, c.DatabaseURL, migrations.FS, progress); err != nil {
		stop()
		return c, nil, err
	}
	return c, stop, nil
}

func dev(ctx context.Context, out io.Writer, in io.Reader, question string) error {
	c, stopDatabase, err := devBase(ctx, out)
	if err != nil {
		return err
	}
	defer stopDatabase()
	if c.APIAddr, err = freeAddr(out, c.APIAddr); err != nil {
		return err
	}
	if c.OpsAddr, err = freeAddr(out, c.OpsAddr); err != nil {
		return err
	}
	if c.DevDir, err = devFolder(c.DevDir); err != nil {
		return err
	}
	logFile, err := devLog(c.DevDir)
	if err != nil {
		return err
	}
	defer logFile.Close()
	page, closePage, err := servePage()
	if err != nil {
		return err
	}
	defer closePage()
	c.letReach(page)
	if err := c.nameExample(); err != nil {
		return err
	}
	s, err := newService(ctx, c, logFile)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	serving, stop := context.WithCancel(ctx)
	defer stop()
	go func() { done <- s.run(serving) }()
	api, ops := s.apiAddr.Addr().String(), s.opsAddr.Addr().String()
	info := s.model.Info()
	if err := s.listed(ctx); err != nil {
		fmt.Fprintln(out, "MCP:     ", err)
	}
	tools, err := s.toolNames()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "serving:  http://%s (API), http://%s (health, metrics)\nmodel:    %s %s\ntools:    %s\n", api, ops, info.Provider, info.Model, tools)
	fmt.Fprintf(out, "reach:    on this machine tools reach %s and nothing else (RUNTIME_EGRESS_ALLOW)\n", strings.Join(c.Tools.EgressAllow, ", "))
	fmt.Fprintf(out, "MCP:      the servers of %s (RUNTIME_MCP_SERVERS)\nlog:      %s\n\n", c.MCP.Servers, logFile.Name())

	first := firstRun{c: c, url: "http://" + api, page: page, question: question, out: out, in: in}
	if err := first.show(ctx); err != nil && ctx.Err() == nil {
		stop()
		return errors.Join(fmt.Errorf("the first run: %w", err), <-done)
	}
	if ctx.Err() == nil {
		fmt.Fprint(out, tryNext(api, ops))
	}
	err = <-done
	fmt.Fprintln(out, "stopped")
	return err
}

// devEnvironment sets what a development process needs and nobody has set.
func devEnvironment() error {
	for name, value := range map[string]string{"RUNTIME_ENV": "dev", "MODEL_BUILTIN_DELAY": "15ms"} {
		if os.Getenv(name) == "" {
			if err := os.Setenv(name, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// devDatabase starts a private Postgres unless DATABASE_URL names one.
func devDatabase(ctx context.Context, out io.Writer, c *config) (stop func(), err error) {
	if c.DatabaseURL != "" {
		fmt.Fprintln(out, "database: the one that DATABASE_URL names")
		return func() {}, nil
	}
	progress := prefixed{out, "database: "}
	server, err := devdb.Start(ctx, devdb.Config{Dir: c.DevDir, Durable: true, Log: progress})
	if errors.Is(err, devdb.ErrNoBinaries) && os.Geteuid() == 0 {
		if _, lookErr := exec.LookPath("apt-get"); lookErr == nil {
			if err := devdb.Install(ctx, progress); err != nil {
				return nil, err
			}
			server, err = devdb.Start(ctx, devdb.Config{Dir: c.DevDir, Durable: true, Log: progress})
		}
	}
	if err != nil {
		return nil, err
	}
	c.DatabaseURL = server.URL("postgres")
	dir := c.DevDir
	if dir == "" {
		if dir, err = devdb.DefaultDir(); err != nil {
			return nil, errors.Join(err, server.Stop(ctx))
		}
	}
	c.Wallet.ofDev(dir)
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			fmt.Fprintln(out, "database:", err)
		}
	}, nil
}

// prefixed marks each line that a part says.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p prefixed) Write(b []byte) (int, error) {
	_, err := io.WriteString(p.w, p.prefix+string(b))
	return len(b), err
}

// freeAddr is the wanted address, or one of a free port beside it.
func freeAddr(out io.Writer, wanted string) (string, error) {
	l, err := net.Listen("tcp", wanted)
	if err == nil {
		return wanted, l.Close()
	}
	host, _, splitErr := net.SplitHostPort(wanted)
	if splitErr != nil {
		return "", splitErr
	}
	l, freeErr := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if freeErr != nil {
		return "", errors.Join(err, freeErr)
	}
	fmt.Fprintf(out, "serving:  %s is taken, so %s is used\n", wanted, l.Addr())
	return l.Addr().String(), l.Close()
}

// devFolder is where a development server keeps what it writes.
func devFolder(dir string) (string, error) {
	if dir == "" {
		var err error
		if dir, err = devdb.DefaultDir(); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("the folder of dev: %w", err)
	}
	return dir, nil
}

// devLog is where its log lines go, so that the terminal shows the run.
func devLog(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "runtime.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
}

func tryNext(api, ops string) string {
	at := ""
	if api != defaultAddr {
		at = " --url http://" + api
	}
	return fmt.Sprintf(`Try, in another terminal:
  bin/openagents-runtime chat%[1]s                       talk to it; say: Fetch the page http://%[2]s/readyz
  bin/openagents-runtime run list%[1]s                   the runs so far
  bin/openagents-runtime approval list --state ""%[1]s   what people were asked, and said
  bin/openagents-runtime run events RUN_ID%[1]s          a run's log
  bin/openagents-runtime run stream RUN_ID%[1]s --raw    the stream as clients see it
  curl http://%[2]s/metrics
  curl -H @<(bin/openagents-runtime sign GET /internal/v1/runs) http://%[3]s/internal/v1/runs
Ctrl-C stops everything.
`, at, ops, api)
}
