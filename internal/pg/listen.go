package pg

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	listenFirstDelay = 50 * time.Millisecond
	listenMaxDelay   = 5 * time.Second
)

// pace is how a quiet connection is watched: one whose peer is gone without a
// word looks idle for ever, so it is asked something after idle, and must answer
// within probe.
type pace struct{ idle, probe time.Duration }

var listenPace = pace{idle: 30 * time.Second, probe: 5 * time.Second}

// Listen receives the notifications of channel on a connection of its own until
// ctx ends, and then returns nil. It reconnects for ever, with growing delays.
// The only error is a URL that cannot be read.
//
// onGap is called after every connect, the first included: notifications sent
// before it are lost, so the caller reads what it may have missed. lost, when
// given, is called with the reason each time the connection is lost or cannot
// be made. The functions are called one at a time and hold up what follows.
func Listen(ctx context.Context, databaseURL, channel string, onNotify func(payload string), onGap func(), lost ...func(error)) error {
	return listen(ctx, databaseURL, channel, listenPace, onNotify, onGap, lost)
}

func listen(ctx context.Context, databaseURL, channel string, p pace, onNotify func(string), onGap func(), lost []func(error)) error {
	pc, err := parse(databaseURL)
	if err != nil {
		return err
	}
	cc := pc.ConnConfig
	prepare(cc, DefaultAppName+" listen "+channel)
	delay := listenFirstDelay
	for ctx.Err() == nil {
		connected, err := listenOnce(ctx, cc, channel, p, onNotify, onGap)
		if ctx.Err() != nil {
			break
		}
		for _, f := range lost {
			f(err)
		}
		if connected {
			delay = listenFirstDelay
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay/2 + rand.N(delay)): // spread replicas that lost the same server
		}
		delay = min(2*delay, listenMaxDelay)
	}
	return nil
}

// listenOnce serves one connection, and reports whether it came to listen.
func listenOnce(ctx context.Context, cc *pgx.ConnConfig, channel string, p pace, onNotify func(string), onGap func()) (bool, error) {
	conn, err := pgx.ConnectConfig(ctx, cc.Copy())
	if err != nil {
		return false, fmt.Errorf("listen on %s: %w", channel, err)
	}
	defer func() {
		// The connection is broken or no longer wanted: its farewell tells nothing.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.probe)
		defer cancel()
		_ = conn.Close(closing)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return false, fmt.Errorf("listen on %s: %w", channel, err)
	}
	onGap()
	for {
		if err := waitOne(ctx, conn, p, onNotify); err != nil {
			return true, fmt.Errorf("listen on %s: %w", channel, err)
		}
	}
}

// waitOne hands on one notification, or finds after a quiet while that the
// connection still answers.
func waitOne(ctx context.Context, conn *pgx.Conn, p pace, onNotify func(string)) error {
	idle, cancel := context.WithTimeout(ctx, p.idle)
	defer cancel()
	n, err := conn.WaitForNotification(idle)
	if err == nil {
		onNotify(n.Payload)
		return nil
	}
	if ctx.Err() != nil || idle.Err() == nil {
		return err
	}
	probe, cancel := context.WithTimeout(ctx, p.probe)
	defer cancel()
	return conn.Ping(probe)
}
