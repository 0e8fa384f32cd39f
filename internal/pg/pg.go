// Package pg opens the pool, migrates, listens.
package pg

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Schema is the schema that every table of the service lives in.
const Schema = "runtime"

// What Config's zero values mean.
const (
	DefaultAppName                  = "openagents-runtime"
	DefaultStatementTimeout         = 30 * time.Second
	DefaultIdleInTransactionTimeout = 10 * time.Second

	defaultConnectTimeout = 10 * time.Second
)

// Config says which database, and how long a session may take over things.
type Config struct {
	// URL is postgres://user:password@host:port/database?sslmode=…, or with
	// host=<folder> in the query for a unix socket.
	URL string
	// MaxConns bounds the pool. 0 leaves it to the URL (pool_max_conns), then
	// to the number of processors, at least 4.
	MaxConns int
	// AppName is what pg_stat_activity shows. Empty means the URL's
	// application_name, then DefaultAppName.
	AppName string
	// StatementTimeout ends a statement that runs longer; 0 means
	// DefaultStatementTimeout.
	StatementTimeout time.Duration
	// IdleInTransactionTimeout ends a session that leaves a transaction open:
	// an old snapshot slows every writer. 0 means
	// DefaultIdleInTransactionTimeout.
	IdleInTransactionTimeout time.Duration
	// LockTimeout ends a statement that waits longer for somebody's lock; 0 lets
	// it wait as long as it may run.
	LockTimeout time.Duration
	// ByKeyOnly is for sessions whose every statement finds its rows by key: a
	// plan made while a table was small must not go on reading it whole, and one
	// plan does for all keys. Planning a question to a partitioned table takes
	// longer than answering it.
	ByKeyOnly bool
	// NoPing takes a connection from the pool without asking whether it still
	// works: for those who ask again soon anyway, and would otherwise ask an idle
	// database twice each time.
	NoPing bool
}

// Validate reports the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case c.MaxConns < 0 || c.MaxConns > 10_000:
		return fmt.Errorf("database pool: %d connections make no sense", c.MaxConns)
	case c.StatementTimeout < 0 || c.IdleInTransactionTimeout < 0 || c.LockTimeout < 0:
		return errors.New("database pool: a timeout is negative")
	}
	_, err := parse(c.URL)
	return err
}

// Open connects to the database and returns a pool whose sessions work in the
// schema runtime. It fails when the database cannot be reached. Errors never
// contain the password.
func Open(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	pc, err := parse(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.MaxConns > 0 {
		pc.MaxConns = int32(cfg.MaxConns) //nolint:gosec // bounded by Validate
		pc.MinConns = min(pc.MinConns, pc.MaxConns)
	}
	prepare(pc.ConnConfig, cfg.AppName)
	params := pc.ConnConfig.RuntimeParams
	params["statement_timeout"] = millis(cfg.StatementTimeout, DefaultStatementTimeout)
	params["idle_in_transaction_session_timeout"] = millis(cfg.IdleInTransactionTimeout, DefaultIdleInTransactionTimeout)

	if cfg.LockTimeout > 0 {
		params["lock_timeout"] = millis(cfg.LockTimeout, 0)
	}
	if cfg.ByKeyOnly {
		params["enable_seqscan"] = "off"
		params["plan_cache_mode"] = "force_generic_plan"
	}
	if cfg.NoPing {
		pc.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	}
	pc.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		sendUUIDs(conn)
		return nil
	}

	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("reach the database: %w", err)
	}
	return pool, nil
}

// prepare puts what every session of ours has in common into cc.
func prepare(cc *pgx.ConnConfig, appName string) {
	cc.RuntimeParams["search_path"] = Schema
	switch {
	case appName != "":
		cc.RuntimeParams["application_name"] = appName
	case cc.RuntimeParams["application_name"] == "":
		cc.RuntimeParams["application_name"] = DefaultAppName
	}
	if cc.ConnectTimeout == 0 {
		cc.ConnectTimeout = defaultConnectTimeout
	}
}

func millis(d, zero time.Duration) string {
	if d == 0 {
		d = zero
	}
	// The server reads 0 as "no limit", so that a fraction rounds up.
	return strconv.FormatInt(max(1, d.Milliseconds()), 10)
}

// ErrURL means that a database URL cannot be read.
var ErrURL = errors.New("the database URL cannot be read")

// parse reads a URL, its pool_… settings included: the server would refuse
// those from a single connection.
func parse(databaseURL string) (*pgxpool.Config, error) {
	if strings.TrimSpace(databaseURL) == "" {
		return nil, fmt.Errorf("%w: it is empty", ErrURL)
	}
	pc, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, urlError(databaseURL, err)
	}
	return pc, nil
}

// urlError says what is wrong with a URL. The driver quotes pieces of what it
// was given, which may be pieces of the password, so its words pass only when
// the password is known and taken out.
func urlError(databaseURL string, err error) error {
	const form = "expected postgres://user:password@host:port/database, other characters than letters and digits in the password percent-encoded"
	u, parseErr := url.Parse(databaseURL)
	known := parseErr == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") &&
		u.Fragment == "" && (u.User != nil || !strings.Contains(databaseURL, "@"))
	if !known {
		return fmt.Errorf("%w: %s", ErrURL, form)
	}
	cause := err
	for e := errors.Unwrap(cause); e != nil; e = errors.Unwrap(cause) {
		cause = e
	}
	text := cause.Error()
	secrets := []string{u.Query().Get("password"), u.Query().Get("sslpassword")}
	if p, ok := u.User.Password(); ok {
		secrets = append(secrets, p)
	}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(text, secret) {
			return fmt.Errorf("%w: %s", ErrURL, form)
		}
	}
	return fmt.Errorf("%w: %s", ErrURL, text)
}
