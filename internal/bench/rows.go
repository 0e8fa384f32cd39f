package main

import "slices"

const (
	perEvent  = "bytes, lower is better"
	aShare    = "share, higher is better"
	aRatio    = "times, lower is better"
	perFsync  = "per fsync, higher is better"
	perSecQ   = "queries/s, lower is better"
	micros    = "µs, lower is better"
	kilobytes = "KB, lower is better"
)

// table is every row, subject by subject.
func table() []row {
	return slices.Concat(appendRows(), hotRows(), leaseRows(), streamRows(), fanRows(), readRows(), toolRows(), scaleRows(), spendRows())
}

// cells are what the rows need. Neighbours are measured one after the other, so
// what a row compares stands together.
func (s *subjects) cells() []cell {
	return slices.Concat(s.appendCells(), s.hotCells(), s.leaseCells(), s.streamCells(), s.fanCells(), s.readCells(), s.toolCells(), s.scaleCells(), s.spendCells())
}

// pair is a rate and how long the usual operation takes.
func pair(what, ours, plain string, rates, medians want) []row {
	return []row{
		{what: what, ours: ours, plain: plain, unit: perSecond, figure: rate, want: rates},
		{what: what + ", p50", ours: ours, plain: plain, unit: inMillis, figure: median, want: medians},
	}
}

func appendRows() []row {
	none := want{}
	batches := want{ratio, .75, .9}
	return slices.Concat(
		pair("start runs, 1 client [1]", "start 1", "plain 1", none, none),
		pair("start runs, 32 clients [1]", "start 32", "plain 32", none, none),
		pair("append events one by one, 1 run [2]", "append 1", "plain 1", none, want{ratio, 1.5, 1.2}),
		pair("append events one by one, 64 runs [2]", "append 64", "plain 64", want{ratio, 1.5, 2.5}, none),
		[]row{{what: "append events one by one, 64 runs [2], p99", ours: "append 64", plain: "plain 64", unit: inMillis, figure: tail}},
		pair("append events one by one, 256 runs [2]", "append 256", "plain 64", want{ratio, 3, 4.5}, none),
		pair("append events one by one, 1,000 runs [2]", "append most", "plain 64", want{ratio, 4, 6}, none),
		[]row{{what: "append at half the rate of 64 runs, p99 / p50 [6]", ours: "append 64 at half rate", plain: "plain 64", unit: aRatio, figure: spread, want: want{itself, 8, 4}}},
		pair("append batches of 10, 64 runs [3]", "append 64 of 10", "plain 64 of 10", batches, none),
		pair("append batches of 10, 64 runs, 1 lane [3]", "append 64 of 10, 1 lane", "plain 64 of 10", batches, none),
		pair("append batches of 50, 64 runs [3]", "append 64 of 50", "plain 64 of 50", batches, none),
		pair("append batches of 50, 64 runs, 1 lane [3]", "append 64 of 50, 1 lane", "plain 64 of 50", batches, none),
		[]row{
			{what: "write-ahead log per event, one by one, 1 run [7]", ours: "append 1", plain: "plain 1", unit: perEvent, figure: value("wal"), want: want{ratio, 1.6, 1.3}},
			{what: "write-ahead log per event, one by one, 64 runs [7]", ours: "append 64", plain: "plain 64", unit: perEvent, figure: value("wal"), want: want{ratio, 1.6, 1.3}},
			{what: "write-ahead log per event, batches of 50 [7]", ours: "append 64 of 50", plain: "plain 64 of 50", unit: perEvent, figure: value("wal"), want: want{ratio, 1.15, 1.05}},
		},
		pair("append frames over HTTP, 1 client [4]", "frame 1", "plain 1", none, none),
		pair("append frames over HTTP, 32 clients [4]", "frame 32", "plain 32", none, none),
	)
}

func (s *subjects) appendCells() []cell {
	return []cell{
		s.plain.inserts(1), s.starts(1), s.appends(s.held[:1], 1, "append 1"), s.posts.frames(1),
		s.plain.inserts(32), s.starts(32), s.startsHeld("start 32 held", 32), s.posts.frames(32),
		s.plain.inserts(64), s.appends(s.held[:64], 1, "append 64"), s.appends(s.held, 1, "append 256"), s.most(), s.halfRate(),
		s.plain.batches(64, 10), s.appends(s.held[:64], 10, "append 64 of 10"), s.appends(s.heldLone, 10, "append 64 of 10, 1 lane"),
		s.plain.batches(64, 50), s.appends(s.held[:64], 50, "append 64 of 50"), s.appends(s.heldLone, 50, "append 64 of 50, 1 lane"),
	}
}

func hotRows() []row {
	on := want{ratio, .7, .85}
	same := want{ratio, .9, .9}
	wake := func(n, cell string) []row {
		return []row{
			{what: "append with wake-ups on, against off, " + n + " listening [8]", ours: cell, plain: "wake off", unit: perSecond, figure: rate, want: on},
			{what: "appends per fsync with wake-ups on, against off, " + n + " listening [8]", ours: cell, plain: "wake off", unit: perFsync, figure: value("per fsync"), want: same},
		}
	}
	return slices.Concat(
		[]row{
			{what: "one run, 8 writers, against a counter row [9]", ours: "hot run", plain: "counter hot", unit: perSecond, figure: rate, want: want{ratio, 2, 3}},
			{what: "idempotent frames, 64 runs, against a counter row each [9]", ours: "frames new", plain: "counter 64", unit: perSecond, figure: rate, want: want{ratio, .6, 2}},
			{what: "repeated frames, 64 runs, against a counter row each [9]", ours: "frames again", plain: "counter 64", unit: perSecond, figure: rate},
			{what: "write-ahead log per repeated frame [9]", ours: "frames again", plain: "counter 64", unit: perEvent, figure: value("wal"), want: want{itself, 1, 1}},
		},
		wake("1", "wake on 1"), wake("8", "wake on 8"), wake("32", "wake on 32"),
	)
}

func (s *subjects) hotCells() []cell {
	return []cell{
		s.plain.counters("counter hot", 8, true), s.hotRun(),
		s.plain.counters("counter 64", 64, false), s.frames("frames new", false), s.frames("frames again", true),
		s.wakes("wake on 1", 1, false), s.wakes("wake on 8", 8, false), s.wakes("wake off", 0, true), s.wakes("wake on 32", 32, false),
	}
}

func leaseRows() []row {
	return []row{
		{what: "renew 10,000 leases of one process, against one by one [10]", ours: "renew many", plain: "renew one", unit: perSecond, figure: rate, want: want{ratio, 40, 80}},
		{what: "share of renewals that touch no index [10]", ours: "renew many", unit: aShare, figure: value("hot"), want: want{itself, .95, .95}},
		{what: "start runs and take their leases, 32 clients [10]", ours: "start 32 held", plain: "plain 32", unit: perSecond, figure: rate, want: want{ratio, .35, .6}},
	}
}

func (s *subjects) leaseCells() []cell { return []cell{s.renewsOne(), s.renewals()} }

func streamRows() []row {
	lone := func(where, cell string) []row {
		what := "append to the stream's first byte, " + where + ", p50, against a "
		return []row{
			{what: what + "commit [5]", ours: cell, plain: "plain 1", unit: inMillis, figure: median},
			{what: what + "bare notification [5]", ours: cell, plain: "notify", unit: inMillis, figure: median},
		}
	}
	return slices.Concat(lone("same process", "stream here"), lone("another process", "stream there"))
}

func (s *subjects) streamCells() []cell {
	return []cell{s.plain.notices(), streamed("stream here", s.std, s.std.url), streamed("stream there", s.std, s.reader.hello.URL)}
}
