package devdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// Install makes sure that this machine has server binaries, and says on log
// what it does. It does nothing when there are some. As root where apt-get
// exists it installs the distribution's package; otherwise, or when that fails,
// it fetches the packed binaries. The error ends with the line to type.
func Install(ctx context.Context, log io.Writer) error {
	_, err := find(ctx)
	if !errors.Is(err, ErrNoBinaries) {
		return err
	}
	if os.Geteuid() == 0 {
		if apt, lookErr := exec.LookPath("apt-get"); lookErr == nil {
			aptErr := aptInstall(ctx, apt, log)
			if aptErr == nil {
				_, aptErr = find(ctx)
			}
			if aptErr == nil {
				return nil
			}
			fmt.Fprintf(log, "%v\n", aptErr)
		}
	}
	_, err = locate(ctx, log)
	return err
}

func aptInstall(ctx context.Context, apt string, log io.Writer) error {
	fmt.Fprintln(log, "Installing PostgreSQL with apt-get.")
	for _, args := range [][]string{
		{"update", "-q"},
		{"install", "-y", "-q", "--no-install-recommends", "postgresql"},
	} {
		cmd := exec.CommandContext(ctx, apt, args...)
		// A killed dpkg leaves the machine half configured: ask it to end.
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("run apt-get %s: %w", args[0], err)
		}
	}
	return nil
}
