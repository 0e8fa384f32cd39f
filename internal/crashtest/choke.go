package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	toxic "github.com/Shopify/toxiproxy/v2/toxics"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// choke lets so many more bytes of each connection pass and loses the rest, with
// no word to either side. When it is taken away the connection ends.
type choke struct {
	Bytes int `json:"bytes"`
}

func init() { toxic.Register("choke", new(choke)) }

func (c *choke) Pipe(stub *toxic.ToxicStub) {
	left := c.Bytes
	for {
		select {
		case <-stub.Interrupt:
			return
		case some := <-stub.Input:
			if some == nil {
				stub.Close()
				return
			}
			some.Data = some.Data[:min(len(some.Data), left)]
			if left -= len(some.Data); len(some.Data) > 0 {
				stub.Output <- some
			}
		}
	}
}

// Cleanup ends the connection.
func (*choke) Cleanup(stub *toxic.ToxicStub) { stub.Close() }

func (l *line) choke(bytes int) error {
	attributes, err := json.Marshal(choke{bytes})
	if err != nil {
		return err
	}
	return l.toxic(fmt.Sprintf(`{"name": "choke", "type": "choke", "stream": "upstream", "attributes": %s}`, attributes))
}

// silentInside loses all but the first bytes of what the victim sends, so that
// half a batch arrives: the database shows a session that waits for the rest,
// with heads locked.
func silentInside(ctx context.Context, t *trial) error {
	if err := t.holds(ctx, t.victim); err != nil {
		return err
	}
	for range 6 { // between which renewals arrive
		if err := t.victim.line.choke(200 + t.rng.IntN(3000)); err != nil {
			return err
		}
		at := time.Now()
		if err := t.noteLosses(ctx, t.victim, at); err != nil {
			return err
		}
		if err := rig.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		var half bool
		err := t.w.db.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity a JOIN pg_locks l USING (pid)
			WHERE a.usename = 'victim' AND a.state = 'active' AND a.wait_event = 'ClientRead' AND a.query_start < clock_timestamp() - interval '60 milliseconds'
			  AND l.granted AND l.relation = 'runtime.run_heads'::regclass)`).Scan(&half)
		if err != nil {
			return err
		}
		if half && len(t.losses) > 0 {
			err = rig.Pause(ctx, 5*t.w.ttl)
			t.victim.line.clear(ctx)
			return err
		}
		clear(t.losses)
		t.victim.line.clear(ctx)
		if err := rig.Pause(ctx, time.Duration(150+t.rng.IntN(100))*time.Millisecond); err != nil {
			return err
		}
	}
	return errMissed
}
