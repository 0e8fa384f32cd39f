package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

func verifyCommand() *cobra.Command {
	var heads bool
	var file string
	cmd := &cobra.Command{
		Use:   "verify RUN_ID…",
		Short: "Recompute the hash chains of runs from the database",
		Long: "Reads the logs of runs from DATABASE_URL, without a service, and recomputes their chains from the first " +
			"event that is kept to the head. Fails when one does not verify, and names the first bad event. With --heads it " +
			"prints a line of run, seq and hash for each; kept elsewhere, such lines show with --kept that a log was not " +
			"cut off or made anew since.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			kept, err := readMarks(file)
			if err != nil {
				return err
			}
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
				head, err := runlog.Verify(ctx, pool, r.RunKey, r.RunID, kept[id]...)
				var chain *runlog.ChainError
				switch {
				case errors.As(err, &chain):
					broken = append(broken, fmt.Errorf("run %s: %w", id, err))
				case err != nil:
					return err
				case heads:
					h, err := runlog.GetHead(ctx, pool, r.RunKey)
					if err != nil {
						return err
					}
					fmt.Fprintf(cmd.OutOrStdout(), "%s\t%d\t%s\n", id, h.Seq, canon.Digest(h.Hash))
				default:
					fmt.Fprintf(cmd.OutOrStdout(), "%s: the chain verifies up to seq %d\n", id, head)
				}
			}
			return errors.Join(broken...)
		},
	}
	cmd.Flags().BoolVar(&heads, "heads", false, "print run, seq and hash of each head")
	cmd.Flags().StringVar(&file, "kept", "", "a file of lines that --heads printed earlier")
	return cmd
}

// readMarks reads what --heads printed, by run.
func readMarks(file string) (map[string][]runlog.Mark, error) {
	marks := map[string][]runlog.Mark{}
	if file == "" {
		return marks, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		fields := strings.Split(line, "\t")
		if len(fields) != 3 {
			return nil, fmt.Errorf("%s: line %d is not run, seq and hash with tabs between", file, i+1)
		}
		seq, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: the seq: %w", file, i+1, err)
		}
		hash, err := canon.ParseDigest(fields[2])
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", file, i+1, err)
		}
		marks[fields[0]] = append(marks[fields[0]], runlog.Mark{Seq: seq, Hash: hash})
	}
	return marks, nil
}
