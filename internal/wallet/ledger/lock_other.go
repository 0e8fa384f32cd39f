//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package ledger

import (
	"errors"
	"os"
)

// lock would keep other processes out, which cannot be done here.
func lock(*os.File) error { return errors.New("files cannot be locked on this system") }
