package rig

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

// Database is a private, migrated Postgres on durable settings that can be
// killed and started again at the same address.
type Database struct {
	// Pool is for who looks on; it is not behind what hurts a process's line.
	Pool *pgxpool.Pool

	dir    string
	server *devdb.Server
	relay  *Relay
}

// NewDatabase starts a server with its files in dir. name is what its looker-on
// is called in pg_stat_activity.
func NewDatabase(ctx context.Context, dir, name string) (_ *Database, err error) {
	d := &Database{dir: dir}
	if d.relay, err = NewRelay(); err != nil {
		return nil, err
	}
	if err := d.Start(ctx); err != nil {
		return nil, err
	}
	if err := d.prepare(ctx, name); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Database) prepare(ctx context.Context, name string) (err error) {
	if err := d.requireDurable(ctx); err != nil {
		return err
	}
	if err := pg.Migrate(ctx, d.URL(d.Address()), migrations.FS, func(string) {}); err != nil {
		return err
	}
	d.Pool, err = pg.Open(ctx, pg.Config{URL: d.URL(d.Address()), MaxConns: 6, AppName: name})
	return err
}

// requireDurable refuses a server that could lose what it has committed: then
// nothing that follows would prove anything.
func (d *Database) requireDurable(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, d.URL(d.Address()))
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
			return fmt.Errorf("the database has %s=%s; this runs on durable settings only", setting, value)
		}
	}
	return nil
}

// Address is where the database is reached by TCP: host:port.
func (d *Database) Address() string { return d.relay.Address() }

// Relay is what stands between the database and whoever reaches it by TCP.
func (d *Database) Relay() *Relay { return d.relay }

// URL reaches the database through an address.
func (d *Database) URL(address string) string { return d.URLOf("postgres", address) }

// URLOf is the same as a role.
func (d *Database) URLOf(role, address string) string {
	return "postgres://" + role + "@" + address + "/" + databaseName + "?sslmode=disable"
}

// Direct reaches the server that was started last with nothing in between.
func (d *Database) Direct() string { return d.server.URL(databaseName) }

// Start starts the server, again when the last one's backends still hold its
// memory. Clients reach it when Start returns, and not before.
func (d *Database) Start(ctx context.Context) error {
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
func (d *Database) aim() error {
	u, err := url.Parse(d.server.URL(databaseName))
	if err != nil {
		return err
	}
	q := u.Query()
	d.relay.Point(filepath.Join(q.Get("host"), ".s.PGSQL."+q.Get("port")))
	return nil
}

// Done is closed when the server that was started last has ended.
func (d *Database) Done() <-chan struct{} { return d.server.Done() }

// Kill ends the postmaster at once, and waits until it is gone.
func (d *Database) Kill() error {
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

// Close stops the server; its files stay.
func (d *Database) Close() error {
	if d.Pool != nil {
		d.Pool.Close()
	}
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	err := d.server.Stop(ctx)
	return errors.Join(err, d.relay.Close())
}
