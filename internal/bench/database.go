package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/internal/devdb"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/migrations"
)

// database is where everything is measured, ours and the plain cases.
type database struct {
	url     string
	admin   string // URL of the server's own database
	dir     string // of the private server's files
	private bool
	ends    []func(context.Context) error // last first
}

// openDatabase makes a migrated database, on a private durable server unless
// another server is named.
func openDatabase(ctx context.Context, o options, progress io.Writer) (_ *database, err error) {
	d := &database{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	admin := o.database
	if admin == "" {
		if admin, err = d.startPrivate(ctx, o.dir, progress); err != nil {
			return nil, err
		}
	}
	if err := requireDurable(ctx, admin); err != nil {
		return nil, err
	}
	d.admin = admin
	name := "bench_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if err := execute(ctx, admin, "CREATE DATABASE "+name); err != nil {
		return nil, err
	}
	d.ends = append(d.ends, func(ctx context.Context) error {
		return execute(ctx, admin, "DROP DATABASE "+name+" WITH (FORCE)")
	})
	u, err := url.Parse(admin)
	if err != nil || u.Scheme == "" {
		return nil, errors.New("-database must be a URL: postgres://user@host:port/database")
	}
	u.Path = "/" + name
	d.url = u.String()
	if err := pg.Migrate(ctx, d.url, migrations.FS, func(string) {}); err != nil {
		return nil, err
	}
	return d, execute(ctx, d.url, plainTable+";"+counterTable+";"+hotTable+";"+quietNotify)
}

// another makes a second migrated database beside the first, named like it and _empty.
func (d *database) another(ctx context.Context) (string, error) {
	u, err := url.Parse(d.url)
	if err != nil {
		return "", err
	}
	u.Path += "_empty"
	name := u.Path[1:]
	if err := execute(ctx, d.admin, "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	d.ends = append(d.ends, func(ctx context.Context) error {
		return execute(ctx, d.admin, "DROP DATABASE "+name+" WITH (FORCE)")
	})
	return u.String(), pg.Migrate(ctx, u.String(), migrations.FS, func(string) {})
}

func (d *database) startPrivate(ctx context.Context, dir string, progress io.Writer) (admin string, err error) {
	d.private = true
	if d.dir = dir; dir == "" {
		if d.dir, err = os.MkdirTemp("", "oa-bench-"); err != nil {
			return "", err
		}
		// The server's own user must pass through; the cluster inside is closed.
		if err := os.Chmod(d.dir, 0o711); err != nil {
			return "", err
		}
		d.ends = append(d.ends, func(ctx context.Context) error { return devdb.Remove(ctx, d.dir) })
	}
	server, err := devdb.Start(ctx, devdb.Config{Dir: d.dir, Durable: true, Log: progress})
	if err != nil {
		return "", err
	}
	d.ends = append(d.ends, server.Stop)
	admin = server.URL("postgres")
	// A checkpoint in the middle of one cell would be charged to that cell.
	for _, setting := range []string{"max_wal_size = '8GB'", "checkpoint_timeout = '30min'"} {
		if err := execute(ctx, admin, "ALTER SYSTEM SET "+setting); err != nil {
			return "", err
		}
	}
	return admin, execute(ctx, admin, "SELECT pg_reload_conf()")
}

func (d *database) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for i := len(d.ends) - 1; i >= 0; i-- {
		errs = append(errs, d.ends[i](ctx))
	}
	return errors.Join(errs...)
}

// requireDurable refuses a server that answers before a commit is on the disk:
// ratios to such commits say nothing.
func requireDurable(ctx context.Context, databaseURL string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing was written
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		var value string
		if err := conn.QueryRow(ctx, "SELECT current_setting($1)", setting).Scan(&value); err != nil {
			return err
		}
		if value == "off" {
			return fmt.Errorf("the server has %s = off, so that its commits are not durable and nothing measured on it would mean anything; "+
				"set it to on, or leave -database out to use a private server", setting)
		}
	}
	return nil
}

func execute(ctx context.Context, databaseURL, statement string) (err error) {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}
