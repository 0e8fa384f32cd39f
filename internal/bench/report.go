package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// row is one line of the table: a figure of ours beside the same of a plain case.
type row struct {
	what        string
	ours, plain string // cells
	unit        string
	figure      func(result) float64
}

const (
	perSecond = "/s, higher is better"
	inMillis  = "ms, lower is better"
)

func rate(r result) float64   { return r.perSecond }
func median(r result) float64 { return float64(r.p50.Microseconds()) / 1000 }
func tail(r result) float64   { return float64(r.p99.Microseconds()) / 1000 }

func table() []row {
	pair := func(what, ours, plain string) []row {
		return []row{{what, ours, plain, perSecond, rate}, {what + ", p50", ours, plain, inMillis, median}}
	}
	return slices.Concat(
		pair("start runs, 1 client [1]", "start 1", "plain 1"),
		pair("start runs, 32 clients [1]", "start 32", "plain 32"),
		pair("append events one by one, 1 run [2]", "append 1", "plain 1"),
		pair("append events one by one, 64 runs [2]", "append 64", "plain 64"),
		[]row{{"append events one by one, 64 runs [2], p99", "append 64", "plain 64", inMillis, tail}},
		pair("append events one by one, 256 runs [2]", "append 256", "plain 64"),
		pair("append batches of 10, 64 runs [3]", "append 64 of 10", "plain 64 of 10"),
		pair("append batches of 10, 64 runs, 1 lane [3]", "append 64 of 10, 1 lane", "plain 64 of 10"),
		pair("append batches of 50, 64 runs [3]", "append 64 of 50", "plain 64 of 50"),
		pair("append batches of 50, 64 runs, 1 lane [3]", "append 64 of 50, 1 lane", "plain 64 of 50"),
		pair("append frames over HTTP, 1 client [4]", "frame 1", "plain 1"),
		pair("append frames over HTTP, 32 clients [4]", "frame 32", "plain 32"),
		[]row{
			{"append to the stream's first byte, same process, p50, against a commit [5]", "stream here", "plain 1", inMillis, median},
			{"append to the stream's first byte, same process, p50, against a bare notification [5]", "stream here", "notify", inMillis, median},
			{"append to the stream's first byte, another process, p50, against a commit [5]", "stream there", "plain 1", inMillis, median},
			{"append to the stream's first byte, another process, p50, against a bare notification [5]", "stream there", "notify", inMillis, median},
		},
	)
}

const notes = `How each is measured. A client does one operation after another and waits for its answer. The plain case is an INSERT
of one row as wide as an event, one commit each, a connection per client, into a table with the log's columns and
primary key and nothing else; "1 client", "32 clients" and "64 runs" are compared with as many such connections, 256 runs with 64.
All clients, the service and Postgres share the machine. The figures are medians over the rounds, the ratio is the median of the rounds' ratios.

1. ` + "`run.Start`" + `: run, head and first event in one commit, which answers with the run.
2. Each run's lease is held and each event is a commit of its own for its caller: fence, number, hash chain, trace ids and
   the notification of other processes are on, two processes listen. Two log lanes, that is two connections.
3. The same with 10 or 50 events a call; plain is one multi-row INSERT of as many rows. The default is two lanes.
4. Over loopback HTTP through the whole API: token made and checked, nonce remembered, schema validated, access line written,
   frame and event committed. Nobody executes the runs.
5. One append at a time on an otherwise idle service; from the call that appends to the first byte of the event at an HTTP client.
   The other process is a process of its own, which hears of the event by notification. The plain cases are one INSERT with its
   commit, and a NOTIFY until another connection has it (which writes nothing to disk).
`

// chosen is the rows that a pattern finds and the cells that they need.
func chosen(rows []row, cells []cell, only *regexp.Regexp) ([]row, []cell) {
	need := map[string]bool{}
	rows = slices.DeleteFunc(rows, func(r row) bool { return !only.MatchString(r.what) })
	for _, r := range rows {
		need[r.ours], need[r.plain] = true, true
	}
	return rows, slices.DeleteFunc(cells, func(c cell) bool { return !need[c.name] })
}

func markdown(rows []row, measured map[string][]result, where string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Performance\n\nWritten by `make bench`. %s\n\n", where)
	b.WriteString("| what | ours | plain | ratio (min–max) | unit |\n|---|---:|---:|---:|---|\n")
	for _, r := range rows {
		var ours, plain, ratios []float64
		for i, o := range measured[r.ours] {
			a, b := r.figure(o), r.figure(measured[r.plain][i])
			ours, plain, ratios = append(ours, a), append(plain, b), append(ratios, a/b)
		}
		for _, s := range [][]float64{ours, plain, ratios} {
			slices.Sort(s)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s (%s–%s) | %s |\n", r.what, short(quantile(ours, .5)), short(quantile(plain, .5)),
			short(quantile(ratios, .5)), short(ratios[0]), short(ratios[len(ratios)-1]), r.unit)
	}
	return b.String() + "\n" + notes
}

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
	return fmt.Sprintf("%s, %s/%s, %d cores%s, %s. PostgreSQL %s (%s), %s. %d rounds of %s a cell.",
		time.Now().UTC().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), busy(), runtime.Version(),
		version, on, settings, o.rounds, o.each), nil
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
