package main

import (
	"context"
	"errors"
	"time"
)

// kit is the other processes that cells of streams share: a server of ours that
// appends and serves, a second one, one that serves from memory, and a client.
type kit struct{ ours, second, memory, watch *child }

// kit starts the processes when a cell first needs them.
func (s *subjects) kit(ctx context.Context) (k *kit, err error) {
	if s.others != nil {
		return s.others, nil
	}
	k = &kit{}
	for _, c := range []struct {
		to   **child
		args []string
	}{{&k.ours, []string{"-serve", s.url}}, {&k.second, []string{"-serve", s.url}}, {&k.memory, []string{"-memory"}}, {&k.watch, []string{"-watch"}}} {
		if *c.to, err = startChild(ctx, c.args...); err != nil {
			return nil, err
		}
		s.ends = append(s.ends, (*c.to).close)
	}
	s.others = k
	return k, nil
}

// fan is a load of streams: runs that grow at a rate together, each read by
// some of the streams.
type fan struct {
	runs, streams, slow int
	rate                float64 // appends per second of all runs
}

// flow has makes append and serves serve, and measures from a delta's making to
// its arrival at the clients.
func flow(k *kit, makes, serves *child, f fan, d time.Duration) (r result, err error) {
	made, err := makes.ask(order{Do: "runs", N: f.runs})
	if err != nil {
		return r, err
	}
	_, err = k.watch.ask(order{Do: "open", URL: serves.hello.URL, Runs: made.Runs, N: f.streams, Slow: f.slow})
	defer func() {
		_, closeErr := k.watch.ask(order{Do: "close"})
		err = errors.Join(err, closeErr)
	}()
	if err != nil {
		return r, err
	}
	before, err := serves.ask(order{Do: "stat"})
	if err != nil {
		return r, err
	}
	paced, err := makes.ask(order{Do: "pace", Rate: f.rate, For: d})
	if err != nil {
		return r, err
	}
	after, err := serves.ask(order{Do: "stat"})
	if err != nil {
		return r, err
	}
	seen, err := k.watch.ask(order{Do: "collect"})
	if err != nil {
		return r, err
	}
	if seen.Done == 0 {
		return r, errors.New("no delta arrived")
	}
	r = result{p50: seen.P50, p99: seen.P99, done: seen.Done, perSecond: float64(seen.Done) / d.Seconds()}
	r = r.with("cpu", float64((after.CPU-before.CPU).Microseconds())/float64(seen.Done))
	r = r.with("queries", float64(after.Asked-before.Asked)/d.Seconds())
	return r.with("append p50", float64(paced.P50.Microseconds())/1000), nil
}

// fanned is a load of streams as a cell.
func (s *subjects) fanned(name string, f fan, ends func(*kit) (makes, serves *child)) cell {
	var k *kit
	return cell{name: name, prepare: func(ctx context.Context) (err error) {
		k, err = s.kit(ctx)
		return err
	}, measure: func(_ context.Context, d time.Duration) (result, error) {
		makes, serves := ends(k)
		return flow(k, makes, serves, f, d)
	}}
}

func here(k *kit) (*child, *child)       { return k.ours, k.ours }
func there(k *kit) (*child, *child)      { return k.ours, k.second }
func fromMemory(k *kit) (*child, *child) { return k.memory, k.memory }

// idle is what a silent stream costs a server that has nothing else to do.
func (s *subjects) idle(name string, args ...string) cell {
	return cell{name: name, most: fewRounds, measure: func(ctx context.Context, d time.Duration) (r result, err error) {
		k, err := s.kit(ctx)
		if err != nil {
			return r, err
		}
		c, err := startChild(ctx, args...)
		if err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, c.close()) }()
		made, err := c.ask(order{Do: "runs", N: max(1, s.o.size.idle/20)})
		if err != nil {
			return r, err
		}
		before, err := c.ask(order{Do: "stat"})
		if err != nil {
			return r, err
		}
		opened, err := k.watch.ask(order{Do: "open", URL: c.hello.URL, Runs: made.Runs, N: s.o.size.idle})
		defer func() {
			_, closeErr := k.watch.ask(order{Do: "close"})
			err = errors.Join(err, closeErr)
		}()
		if err != nil {
			return r, err
		}
		if err := until(ctx, time.Now().Add(3*d)); err != nil {
			return r, err
		}
		after, err := c.ask(order{Do: "stat"})
		if err != nil {
			return r, err
		}
		n := float64(opened.Done) * 1024
		return r.with("rss", (after.RSS-before.RSS)/n).with("heap", (after.Heap-before.Heap)/n), nil
	}}
}

func fanRows() []row {
	few, many := "200 streams of 50 runs, 4,000 deltas/s", "1,000 streams of 50 runs, 20,000 deltas/s"
	return []row{
		{what: "append to stream, " + few + ", same process, p50 [11]", ours: "fan 200", plain: "plain 1", unit: inMillis, figure: median, want: want{excess, 3, 1}},
		{what: "append to stream, " + few + ", another process, p50, against the same process [11]", ours: "fan 200 there", plain: "fan 200", unit: inMillis, figure: median, want: want{excess, 5, 1}},
		{what: "append to stream, " + many + ", p50, against a server from memory [11]", ours: "fan most", plain: "memory most", unit: inMillis, figure: median, want: want{ratio, 10, 5}},
		{what: "append to stream, " + many + ", p99, against a server from memory [11]", ours: "fan most", plain: "memory most", unit: inMillis, figure: tail, want: want{ratio, 10, 5}},
		{what: "deltas delivered, " + many + " [11]", ours: "fan most", plain: "memory most", unit: perSecond, figure: rate},
		{what: "the server's CPU per delivered delta, " + many + " [11]", ours: "fan most", plain: "memory most", unit: micros, figure: value("cpu"), want: want{ratio, 2.5, 1.7}},
		{what: "memory per idle stream, 10,000 streams, resident [12]", ours: "idle ours", plain: "idle memory", unit: kilobytes, figure: value("rss"), want: want{itself, 32, 12}},
		{what: "memory per idle stream, 10,000 streams, heap and stacks [12]", ours: "idle ours", plain: "idle memory", unit: kilobytes, figure: value("heap")},
		{what: "100 of 1,000 streams read 1 KB/s, p99 of the others, against none [13]", ours: "fan slow", plain: "fan most", unit: inMillis, figure: tail, want: want{ratio, 1.2, 1.2}},
		{what: "questions to the database, 1,000 streams of one run, against 1 [13]", ours: "one run, many", plain: "one run, one", unit: perSecQ, figure: value("queries"), want: want{ratio, 1.1, 1.1}},
		{what: "append p50, 1,000 streams of one run, against 1 [13]", ours: "one run, many", plain: "one run, one", unit: inMillis, figure: value("append p50"), want: want{ratio, 1.2, 1.2}},
	}
}

func (s *subjects) fanCells() []cell {
	z := s.o.size
	most := fan{runs: 50, streams: z.streams, rate: 1000}
	slow := most
	slow.slow = z.streams / 10
	return []cell{
		s.fanned("fan 200", fan{runs: 50, streams: min(200, z.streams), rate: 1000}, here),
		s.fanned("fan 200 there", fan{runs: 50, streams: min(200, z.streams), rate: 1000}, there),
		s.fanned("memory most", most, fromMemory), s.fanned("fan most", most, here), s.fanned("fan slow", slow, here),
		s.fanned("one run, one", fan{runs: 1, streams: 1, rate: 20}, here),
		s.fanned("one run, many", fan{runs: 1, streams: z.subscribers, rate: 20}, here),
		s.idle("idle memory", "-memory"), s.idle("idle ours", "-serve", s.url),
	}
}
