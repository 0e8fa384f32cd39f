package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// plainTable has the columns and the key of the log, and nothing else.
const plainTable = `CREATE TABLE plain (
	run_key uuid NOT NULL, seq bigint NOT NULL, event_type text NOT NULL, event_version integer NOT NULL,
	payload json NOT NULL, content_hash bytea NOT NULL, event_hash bytea NOT NULL,
	traceparent text, request_id text, inserted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (run_key, seq))`

const (
	plainInsert = `INSERT INTO public.plain (run_key, seq, event_type, event_version, payload, content_hash, event_hash, traceparent, request_id)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	plainMany = `INSERT INTO public.plain (run_key, seq, event_type, event_version, payload, content_hash, event_hash, traceparent, request_id)
		SELECT $1, unnest($2::bigint[]), $3, $4, unnest($5::text[])::json, unnest($6::bytea[]), unnest($7::bytea[]), $8, $9`
)

// plain writes rows of a log's width with nothing around them: no fence, no
// numbering, no hashing, no notification.
type plain struct {
	pool    *pgxpool.Pool
	writers []plainWriter
}

type plainWriter struct {
	key     uuid.UUID
	seq     int64
	payload string
	hash    []byte
	trace   string
	request string
}

const plainConns = 64

func newPlain(ctx context.Context, databaseURL string) (*plain, error) {
	pc, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	pc.MaxConns = plainConns
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, err
	}
	p := &plain{pool: pool}
	sum := sha256.Sum256([]byte("plain"))
	for range plainConns {
		p.writers = append(p.writers, plainWriter{
			key: canon.NewKey(), payload: `{"delta":"` + deltaText + `","part_id":"text-1"}`, hash: sum[:],
			trace: "00-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-01", request: "req_" + strings.Repeat("c", 24),
		})
	}
	return p, nil
}

// inserts is n clients, each with a connection and a commit per row.
func (p *plain) inserts(n int) cell {
	return cell{name: fmt.Sprintf("plain %d", n), measure: func(ctx context.Context, d time.Duration) (result, error) {
		return p.each(ctx, n, func(conns []*pgxpool.Conn) (result, error) {
			return load(ctx, n, d, 1, func(ctx context.Context, client int) error {
				w := &p.writers[client]
				w.seq++
				_, err := conns[client].Exec(ctx, plainInsert, w.key, w.seq, "message.delta", 1, w.payload, w.hash, w.hash, w.trace, w.request)
				return err
			})
		})
	}}
}

// batches is n clients, each with a connection and a commit per size rows.
func (p *plain) batches(n, size int) cell {
	return cell{name: fmt.Sprintf("plain %d of %d", n, size), measure: func(ctx context.Context, d time.Duration) (result, error) {
		return p.each(ctx, n, func(conns []*pgxpool.Conn) (result, error) {
			return load(ctx, n, d, size, func(ctx context.Context, client int) error {
				w := &p.writers[client]
				seqs, payloads, hashes := make([]int64, size), make([]string, size), make([][]byte, size)
				for i := range size {
					w.seq++
					seqs[i], payloads[i], hashes[i] = w.seq, w.payload, w.hash
				}
				_, err := conns[client].Exec(ctx, plainMany, w.key, seqs, "message.delta", 1, payloads, hashes, hashes, w.trace, w.request)
				return err
			})
		})
	}}
}

// each gives every client its connection, so that no time goes into the pool.
func (p *plain) each(ctx context.Context, n int, f func([]*pgxpool.Conn) (result, error)) (result, error) {
	conns := make([]*pgxpool.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Release()
		}
	}()
	for range n {
		c, err := p.pool.Acquire(ctx)
		if err != nil {
			return result{}, err
		}
		conns = append(conns, c)
	}
	return f(conns)
}

// notices is the round trip of a bare notification: from the NOTIFY on one
// connection to its arrival on another that listens.
func (p *plain) notices() cell {
	return cell{name: "notify", measure: func(ctx context.Context, d time.Duration) (result, error) {
		return p.each(ctx, 2, func(conns []*pgxpool.Conn) (r result, err error) {
			listener := conns[1].Conn()
			if _, err := listener.Exec(ctx, "LISTEN bench"); err != nil {
				return result{}, err
			}
			defer func() {
				_, unlistenErr := listener.Exec(context.WithoutCancel(ctx), "UNLISTEN bench")
				err = errors.Join(err, unlistenErr)
			}()
			arrived := make(chan error, 1)
			stop, cancel := context.WithCancel(ctx)
			go hear(stop, listener, arrived)
			r, err = load(ctx, 1, d, 1, func(ctx context.Context, _ int) error {
				if _, err := conns[0].Exec(ctx, "SELECT pg_notify('bench', 'x')"); err != nil {
					return err
				}
				return <-arrived
			})
			cancel()
			for range arrived { // until hear has let go of the connection
			}
			return r, err
		})
	}}
}

func hear(ctx context.Context, listener *pgx.Conn, arrived chan<- error) {
	defer close(arrived)
	for {
		_, err := listener.WaitForNotification(ctx)
		if ctx.Err() != nil {
			return
		}
		arrived <- err
		if err != nil {
			return
		}
	}
}
