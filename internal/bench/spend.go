package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// hotTable has one row that everybody updates.
const hotTable = `CREATE TABLE plain_hot (id integer PRIMARY KEY, spent bigint NOT NULL, reserved bigint NOT NULL) WITH (fillfactor = 50)`

// hot is n clients, each with a connection and a commit per update of the one row.
func (p *plain) hot(name string, n int) cell {
	return cell{name: name, prepare: func(ctx context.Context) error {
		_, err := p.pool.Exec(ctx, "INSERT INTO public.plain_hot VALUES (1, 0, 0) ON CONFLICT DO NOTHING")
		return err
	}, measure: func(ctx context.Context, d time.Duration) (result, error) {
		return p.each(ctx, n, func(conns []*pgxpool.Conn) (result, error) {
			return load(ctx, n, d, 1, func(ctx context.Context, client int) error {
				_, err := conns[client].Exec(ctx, "UPDATE public.plain_hot SET reserved = reserved + 1 WHERE id = 1")
				return err
			})
		})
	}}
}

// purse is what pays for the calls of some runs.
type purse struct {
	chain spend.Chain
	let   policy.Evaluation
}

const priceSats = 3

// purse issues an authorization for all the bench's runs, once.
func newPurse(ctx context.Context, pool *pgxpool.Pool, id string) (p purse, err error) {
	user, most := userID, int64(spend.MaxSats)
	if _, _, err := spend.Create(ctx, pool, spend.Grant{
		AuthorizationID: id, OwnerUserID: &user, Terms: spend.Terms{MaxTotalSats: &most},
	}, "bench"); err != nil {
		return p, err
	}
	return readPurse(ctx, pool, id)
}

func readPurse(ctx context.Context, pool *pgxpool.Pool, id string) (p purse, err error) {
	chain, ok, err := spend.ChainOfID(ctx, pool, id)
	if err != nil || !ok {
		return p, errors.Join(err, fmt.Errorf("the authorization %s is there: %t", id, ok))
	}
	p.chain = chain
	p.let, err = chain.Decide(ds.PolicyEvaluationV1Input{}, call(db.Run{}, "a"))
	return p, err
}

func call(r db.Run, id string) spend.Intent {
	return spend.Intent{
		Run: r, CallID: id, Kind: spend.ForTool, Tool: "pay.invoice", Provider: "bench", Boundary: spend.DedupeReconcileRequired,
		Quote: spend.Quote{AmountSats: priceSats, Known: true}, Started: true,
	}
}

// pay holds for one call and then commits it, each durably and told in the run's
// log, and says how long the hold took.
func (p purse) pay(ctx context.Context, r db.Run, epoch int64, commit func(context.Context, runlog.Change) error) (time.Duration, error) {
	in := call(r, uuid.NewString())
	c, err := spend.Reserve(p.chain, in, p.let, epoch)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := commit(ctx, c); err != nil {
		return 0, err
	}
	took := time.Since(begun)
	leaf := p.chain.Leaf()
	c, err = spend.Commit(db.SpendReservation{
		RunKey: r.RunKey, RunID: r.RunID, ToolCallID: in.CallID, AuthorizationID: leaf.AuthorizationID, Path: leaf.Path,
		Kind: in.Kind, AmountSats: priceSats, State: spend.Reserved,
	}, spend.Settled{AmountSats: priceSats, CorrelationID: in.CallID}, epoch)
	if err != nil {
		return 0, err
	}
	return took, commit(ctx, c)
}

// pairs is n clients, each with a run that a lease is held on, which hold and settle
// under one authorization.
func (s *subjects) pairs(name string, n int) cell {
	var p purse
	return cell{name: name, prepare: func(ctx context.Context) (err error) {
		p, err = newPurse(ctx, s.std.pool, "auth_bench")
		return err
	}, measure: func(ctx context.Context, d time.Duration) (result, error) {
		ctx = telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
		var holds tails
		r, err := load(ctx, n, d, 1, func(ctx context.Context, client int) error {
			h := s.held[client]
			took, err := p.pay(ctx, db.Run{RunKey: h.RunKey, RunID: h.RunID}, h.Epoch, func(ctx context.Context, c runlog.Change) error {
				_, err := h.Commit(ctx, func(runlog.Head) (runlog.Change, error) { return c, nil })
				return err
			})
			holds.add(took)
			return err
		})
		return r.with("hold p99", holds.p99()), err
	}}
}

// tails collects how long things took.
type tails struct {
	mu  sync.Mutex
	all []time.Duration
}

func (t *tails) add(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, d)
}

// p99 is in milliseconds.
func (t *tails) p99() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.Sort(t.all)
	return float64(quantile(t.all, .99).Microseconds()) / 1000
}

// holdTail is how long a hold takes at the worst, or a plain commit usually.
func holdTail(r result) float64 {
	if v, ok := r.values["hold p99"]; ok {
		return v
	}
	return median(r)
}

const payers = 4

// pairsApart is as many processes with n clients together, on one authorization.
func (s *subjects) pairsApart(name string, n int) cell {
	var children []*child
	return cell{name: name, prepare: func(ctx context.Context) error {
		if _, err := newPurse(ctx, s.std.pool, "auth_bench"); err != nil {
			return err
		}
		for range payers {
			c, err := startChild(ctx, "-serve", s.url)
			if err != nil {
				return err
			}
			s.ends = append(s.ends, c.close)
			if _, err := c.ask(order{Do: "runs", N: n / payers}); err != nil {
				return err
			}
			children = append(children, c)
		}
		return nil
	}, measure: func(ctx context.Context, d time.Duration) (r result, err error) {
		reports, errs := make([]report, payers), make([]error, payers)
		var wg sync.WaitGroup
		for i, c := range children {
			wg.Go(func() { reports[i], errs[i] = c.ask(order{Do: "pay", Authorization: "auth_bench", For: d}) })
		}
		wg.Wait()
		for _, got := range reports {
			r.done += got.Done
			r.perSecond += float64(got.Done) / got.Took.Seconds()
			r.p50, r.p99 = max(r.p50, got.P50), max(r.p99, got.P99)
		}
		return r, errors.Join(errs...)
	}}
}

// pay has each of the runs hold and settle, again and again.
func (s *serving) pay(ctx context.Context, o order) (report, error) {
	p, err := readPurse(ctx, s.p.pool, o.Authorization)
	if err != nil {
		return report{}, err
	}
	begun := time.Now()
	got, err := load(ctx, len(s.runs), o.For, 1, func(ctx context.Context, client int) error {
		r := s.runs[client]
		_, err := p.pay(ctx, r, 0, func(ctx context.Context, c runlog.Change) error {
			_, err := s.p.log.Commit(ctx, runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Trace: telemetry.TraceFrom(ctx),
				Decide: func(runlog.Head) (runlog.Change, error) { return c, nil }})
			return err
		})
		return err
	})
	return report{P50: got.p50, P99: got.p99, Done: got.done, Took: time.Since(begun)}, err
}

func spendRows() []row {
	rates := func(what, cell, plain string, floor, goal float64) row {
		return row{what: "hold and settle pairs on one authorization, " + what + ", against commits of one row [21]",
			ours: cell, plain: plain, unit: perSecond, figure: rate, want: want{ratio, floor, goal}}
	}
	return []row{
		rates("32 clients", "pairs 32", "hot row 32", 2, 5),
		rates("32 clients of 4 processes", "pairs 32 apart", "hot row 32", 1.5, 3),
		rates("256 clients", "pairs 256", "hot row 32", 6, 15),
		rates("1 client", "pairs 1", "hot row 1", .35, .45),
		{what: "a hold at 32 clients, p99, against a lone commit's p50 [21]", ours: "pairs 32", plain: "plain 1", unit: inMillis, figure: holdTail, want: want{ratio, 40, 15}},
		{what: "hold and settle pairs, 32 clients, p99, against commits of one row [21]", ours: "pairs 32", plain: "hot row 32", unit: inMillis, figure: tail},
		{what: "write-ahead log per hold and settle pair, 32 clients [21]", ours: "pairs 32", plain: "hot row 32", unit: perEvent, figure: value("wal")},
	}
}

func (s *subjects) spendCells() []cell {
	return []cell{
		s.plain.hot("hot row 32", 32), s.pairs("pairs 32", 32), s.pairsApart("pairs 32 apart", 32), s.pairs("pairs 256", manyRuns),
		s.plain.hot("hot row 1", 1), s.pairs("pairs 1", 1),
	}
}
