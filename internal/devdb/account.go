package devdb

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is who the server runs as. Postgres refuses to run as root.
type account struct {
	name     string
	uid, gid uint32
	drops    bool // this process is root and gives the server another account
}

// serverAccount is this user, or, when this user is root, the owner of an
// existing cluster, else postgres, else nobody.
func serverAccount(h home) (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil
	}
	if info, err := os.Stat(h.data()); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
			return account{name: fmt.Sprintf("uid %d", st.Uid), uid: st.Uid, gid: st.Gid, drops: true}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue // the next name, or the error below
		}
		uid, errU := strconv.ParseUint(u.Uid, 10, 32)
		gid, errG := strconv.ParseUint(u.Gid, 10, 32)
		if errU == nil && errG == nil && uid != 0 {
			return account{name: name, uid: uint32(uid), gid: uint32(gid), drops: true}, nil
		}
	}
	return account{}, fmt.Errorf("postgres does not run as root, and this machine has neither a user postgres nor nobody: add one, or run as an ordinary user")
}

// attr makes a child run as the account, out of reach of the terminal's Ctrl-C
// (its parent decides when it ends), and, where the system can, receive
// onParentDeath when this process is gone.
func (a account) attr(onParentDeath syscall.Signal) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a.drops {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	setParentDeathSignal(attr, onParentDeath)
	return attr
}

func (a account) own(dir string) error {
	if !a.drops {
		return nil
	}
	if err := os.Chown(dir, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("give %s to %s: %w", dir, a.name, err)
	}
	return nil
}

// canEnter refuses a folder that the server could not reach, naming the closed
// one: initdb would only say "permission denied".
func (a account) canEnter(dir string) error {
	if !a.drops {
		return nil
	}
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return fmt.Errorf("look at %s: %w", d, err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if ok && !a.passes(info.Mode().Perm(), st) {
			return fmt.Errorf("the database server runs as %s, because it cannot run as root, and %s is closed to it: choose a folder outside %s", a.name, d, d)
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}

func (a account) passes(perm os.FileMode, st *syscall.Stat_t) bool {
	switch {
	case st.Uid == a.uid:
		return perm&0o100 != 0
	case st.Gid == a.gid:
		return perm&0o010 != 0
	default:
		return perm&0o001 != 0
	}
}

func (a account) canRun(binDir string) error {
	if err := a.canEnter(binDir); err != nil {
		return fmt.Errorf("use the binaries in %s: %w", binDir, err)
	}
	return nil
}
