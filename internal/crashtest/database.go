package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// database is one whose disk can be filled.
type database struct {
	*rig.Database
	dir  string
	pool *pgxpool.Pool // the auditor's, not behind any process's line
}

func newDatabase(ctx context.Context, dir string) (*database, error) {
	d, err := rig.NewDatabase(ctx, dir, "crashtest")
	if err != nil {
		return nil, err
	}
	if _, err := d.Pool.Exec(ctx, rigging); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return &database{d, dir, d.Pool}, nil
}

// ballast is the file that fills the disk.
func (d *database) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill takes every byte that is left on the database's own small disk, and makes
// the server want a new file for its log.
func (d *database) fill(ctx context.Context) error {
	if err := fillUp(d.ballast()); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	for range 20 { // log files that were kept for later are used up first
		_, err := d.pool.Exec(ctx, "SELECT pg_logical_emit_message(false, 'crashtest', 'x'), pg_switch_wal()")
		if err != nil {
			return nil // there it is
		}
	}
	return errors.New("the disk is full and the database does not mind")
}

// drain gives the room back, and starts the server again when it has ended.
func (d *database) drain(ctx context.Context) error {
	if err := os.Remove(d.ballast()); err != nil {
		return err
	}
	select {
	case <-d.Done():
		return d.Start(ctx)
	case <-time.After(100 * time.Millisecond):
	}
	for {
		if err := d.pool.Ping(ctx); err == nil {
			return nil
		}
		select {
		case <-d.Done():
			return d.Start(ctx)
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fillUp writes a file until the disk takes no more.
func fillUp(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err = f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			return err
		}
	}
	return nil
}
