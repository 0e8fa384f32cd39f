package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/internal/devdb"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/migrations"
)

const databaseName = "postgres"

// database is a private Postgres on durable settings that can be killed.
type database struct {
	dir    string
	server *devdb.Server
	relay  *relay
	pool   *pgxpool.Pool // the auditor's, through the relay only
}

func newDatabase(ctx context.Context, dir string) (_ *database, err error) {
	d := &database{dir: dir}
	if d.relay, err = newRelay(); err != nil {
		return nil, err
	}
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	if err := d.prepare(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *database) prepare(ctx context.Context) (err error) {
	if err := d.requireDurable(ctx); err != nil {
		return err
	}
	if err := pg.Migrate(ctx, d.url(d.relay.address()), migrations.FS, func(string) {}); err != nil {
		return err
	}
	if d.pool, err = pg.Open(ctx, pg.Config{URL: d.url(d.relay.address()), MaxConns: 6, AppName: "crashtest"}); err != nil {
		return err
	}
	_, err = d.pool.Exec(ctx, rigging)
	return err
}

// requireDurable refuses a server that could lose what it has committed: then
// nothing that follows would prove anything.
func (d *database) requireDurable(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, d.url(d.relay.address()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // it has said all it had to
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		var value string
		if err := conn.QueryRow(ctx, "SELECT current_setting($1)", setting).Scan(&value); err != nil {
			return err
		}
		if value != "on" {
			return fmt.Errorf("the database has %s=%s; the crash gate runs on durable settings only", setting, value)
		}
	}
	return nil
}

// url reaches the database through an address.
func (d *database) url(address string) string { return d.urlOf("postgres", address) }

// urlOf is the same for one of the roles that processes log in as.
func (d *database) urlOf(role, address string) string {
	return "postgres://" + role + "@" + address + "/" + databaseName + "?sslmode=disable"
}

// start starts the server, again when the last one's backends still hold its
// memory, and points the relay at it.
func (d *database) start(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	for {
		s, err := devdb.Start(ctx, devdb.Config{Dir: d.dir, Durable: true})
		if err == nil {
			d.server = s
			break
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
	return d.aim()
}

// aim points the relay at the server's socket.
func (d *database) aim() error {
	u, err := url.Parse(d.server.URL(databaseName))
	if err != nil {
		return err
	}
	q := u.Query()
	d.relay.point(filepath.Join(q.Get("host"), ".s.PGSQL."+q.Get("port")))
	return nil
}

// kill ends the postmaster at once, and waits until it is gone.
func (d *database) kill() error {
	files, err := filepath.Glob(filepath.Join(d.dir, "postgres-*", "data", "postmaster.pid"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("find the postmaster in %s: %d files, %w", d.dir, len(files), err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	<-d.server.Done()
	return nil
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
	case <-d.server.Done():
		return d.start(ctx)
	case <-time.After(100 * time.Millisecond):
	}
	for {
		if err := d.pool.Ping(ctx); err == nil {
			return nil
		}
		select {
		case <-d.server.Done():
			return d.start(ctx)
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

func (d *database) close() error {
	if d.pool != nil {
		d.pool.Close()
	}
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	err := d.server.Stop(ctx)
	return errors.Join(err, d.relay.listener.Close())
}
