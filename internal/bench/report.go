package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	perSecond = "/s, higher is better"
	inMillis  = "ms, lower is better"
)

func rate(r result) float64   { return r.perSecond }
func median(r result) float64 { return float64(r.p50.Microseconds()) / 1000 }
func tail(r result) float64   { return float64(r.p99.Microseconds()) / 1000 }

// spread is how much longer the slow operations take than the usual one.
func spread(r result) float64 { return float64(r.p99) / float64(r.p50) }

// value is what a cell measured under a name.
func value(name string) func(result) float64 {
	return func(r result) float64 { return r.values[name] }
}

const notes = `How each is measured. A client does one operation after another and waits for its answer. The plain case is an INSERT
of one row as wide as an event, one commit each, a connection per client, into a table with the log's columns and
primary key and nothing else; "1 client", "32 clients" and "64 runs" are compared with as many such connections, 256 runs with 64.
All clients, the service and Postgres share the machine. The figures are medians over the rounds, the ratio is the median of the rounds' ratios.
Floor and goal are for the ratio (2 x), for what ours takes more than plain (+3), or for ours alone (a bare number). "reached" says which of the two holds, or **short**.
A row whose cells take long is measured in the first 3 rounds, [16] and [18] once.
How long takeover, drain, cancel and an outage of Postgres take is in [bounds.md](bounds.md), what survives in [reliability.md](reliability.md).

1. ` + "`run.Start`" + `: run, head and first event in one commit, which answers with the run.
2. Each run's lease is held and each event is a commit of its own for its caller: fence, number, hash chain, trace ids and
   the notification of other processes are on, two processes listen. Two log lanes, that is two connections.
3. The same with 10 or 50 events a call; plain is one multi-row INSERT of as many rows. The default is two lanes.
4. Over loopback HTTP through the whole API: token made and checked, nonce remembered, schema validated, access line written,
   frame and event committed. Nobody executes the runs.
5. One append at a time on an otherwise idle service; from the call that appends to the first byte of the event at an HTTP client.
   The other process is a process of its own, which hears of the event by notification. The plain cases are one INSERT with its
   commit, and a NOTIFY until another connection has it (which writes nothing to disk).
6. 64 runs append evenly at half the rate that they reached before the first round. The plain column is 64 connections at full rate.
7. What pg_current_wal_insert_lsn moves by, per event, whoever wrote it. No checkpoint falls into a round.
8. 64 runs; connections that LISTEN and read stand for processes. Off is the same statement with a pg_notify that does
   nothing. Fsyncs are pg_stat_wal's, read when the lanes' sessions have ended and so reported all.
9. The counter row is UPDATE … RETURNING and INSERT in one statement, one commit each, a connection per client. Frames are stored
   and logged once per id; they go to the room and not over HTTP.
10. One heartbeat renews all leases of a process; plain updates the same rows one by one, a commit each. A start with its lease is
    run, head and first event, then the lease and the fence; giving the lease back is not measured.
11. Server, second server, memory server and clients are processes of their own. From the moment that a delta is made, which stands
    in its text, to its arrival at a client; ours appends it durably meanwhile. The memory server gives each reader the block from
    a channel and stores nothing. CPU is the server process's, appends included.
12. A process that has started and made its runs, before and after 10,000 streams (20 a run) have opened, 3 rounds; the plain case is the memory server.
13. As 11. A slow reader has a receive buffer of 4 KB. Questions are counted in the serving process, a batch as one: appends, reads and ticks.
14. Replay is one HTTP client of a live run, up to its newest event; the plain case reads the same rows in one question and decodes
    none. The new events are the last of runs of 5,000. Many runs are read with one question.
15. 500 runs of 100 events, 20 streams each; clients are a process of their own. Questions include the checks of each request.
16. 8 runs append all the time, for as long as -snapshot says (30s unless given; the goal is for 10m), with the transaction open.
17. Frames over HTTP from a process of its own. The capacity is what 32 clients reach one frame after another; then frames
    come evenly at half of that and at three times it, signed beforehand, whether or not earlier ones are answered, 4,000 on their way at the most.
18. The whole service with an executor, a janitor and its ticks, on an empty database: transactions per second over 20 s.
19. As 11. The serving process also drives 50 runs, each of which calls 10 tools of 1 s again and again; their beginnings are spread over the second.
20. A turn is a frame, a model call that asks at once, the calls, and a model call with what they came to. From the moment in which the log
    has tool.requested to the one in which it has tool.finished, by the log's own times: request, start and end are three commits of the run.
21. 3 sats are held under one authorization and settled, two commits of a run each with their events, ledger rows and counters; plain updates one
    row, one commit each. Every client has a run.
`

// short is three digits that matter.
func short(f float64) string {
	switch {
	case f >= 1000:
		whole := strconv.Itoa(int(f))
		for at := len(whole) - 3; at > 0; at -= 3 {
			whole = whole[:at] + "," + whole[at:]
		}
		return whole
	case f >= 100:
		return strconv.FormatFloat(f, 'f', 0, 64)
	case f >= 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	default:
		return strconv.FormatFloat(f, 'f', 2, 64)
	}
}

// conditions says where and on what the figures were made.
func conditions(ctx context.Context, d *database, o options) (string, error) {
	conn, err := pgx.Connect(ctx, d.url)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing was written
	var version, settings string
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version'),
		string_agg(name || '=' || current_setting(name), ', ' ORDER BY name)
		FROM unnest(ARRAY['fsync', 'synchronous_commit', 'full_page_writes', 'wal_sync_method', 'shared_buffers', 'max_wal_size']) name`).Scan(&version, &settings)
	if err != nil {
		return "", err
	}
	on := "on a server that was named by -database"
	if d.private {
		on = "private, its files on " + fileSystem(d.dir)
	}
	version, _, _ = strings.Cut(version, " ")
	return fmt.Sprintf("%s, %s/%s, %d cores%s, %s. PostgreSQL %s (%s), %s. %d rounds of %s a cell, a snapshot of %s.",
		time.Now().UTC().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), busy(), runtime.Version(),
		version, on, settings, o.rounds, o.each, o.size.snapshot), nil
}

// busy is the load average at the start, where the system tells.
func busy() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	one, _, _ := strings.Cut(string(b), " ")
	return " (load " + one + " before the start)"
}

// fileSystem is the kind of file system that a folder is on, where the system
// tells: on one in memory a durable commit costs nothing.
func fileSystem(dir string) string {
	b, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return "a file system that the system does not name"
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	kind, longest := "an unknown file system", 0
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		inside := dir == f[1] || strings.HasPrefix(dir, strings.TrimSuffix(f[1], "/")+"/")
		if inside && len(f[1]) >= longest {
			kind, longest = f[2], len(f[1])
		}
	}
	return kind
}
