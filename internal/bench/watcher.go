package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// watcher is a process that reads many streams, a plain connection each.
type watcher struct {
	all  []*watched
	done sync.WaitGroup
}

// watched is one stream that is read.
type watched struct {
	conn net.Conn
	res  *http.Response
	in   *bufio.Reader
	slow bool

	mu   sync.Mutex
	took []time.Duration // from a delta's stamp to its arrival
	last int64           // the newest id
	goal int64
	met  chan struct{} // closed when the id is there
}

func (w *watcher) do(ctx context.Context, o order) (r report, err error) {
	switch o.Do {
	case "open": // opens N streams, spread over the runs, Slow of them slow readers
		begun := time.Now()
		err := w.open(ctx, o)
		return report{Took: time.Since(begun), Done: len(w.all)}, err
	case "collect": // how long deltas took since the last time, to those who are not slow
		var took []time.Duration
		for _, s := range w.all {
			s.mu.Lock()
			if !s.slow {
				took = append(took, s.took...)
			}
			s.took = nil
			s.mu.Unlock()
		}
		got := summary(took, time.Second, 1)
		return report{P50: got.p50, P99: got.p99, Done: got.done}, nil
	case "caught": // waits until every stream has had the seq Until
		for _, s := range w.all {
			select {
			case <-s.met:
			case <-ctx.Done():
				return r, ctx.Err()
			case <-time.After(o.For):
				return r, errors.New("a stream did not catch up")
			}
		}
		return r, nil
	case "close":
		for _, s := range w.all {
			_ = s.conn.Close() // its reader ends by it
		}
		w.done.Wait()
		w.all = nil
		return r, nil
	case "post":
		return post(ctx, o)
	default:
		return r, fmt.Errorf("a watcher does not know %q", o.Do)
	}
}

func (w *watcher) open(ctx context.Context, o order) error {
	var g errgroup.Group
	g.SetLimit(64)
	all := make([]*watched, o.N)
	begun := time.Now()
	for i := range all {
		if o.Connect > 0 {
			if err := until(ctx, begun.Add(o.Connect*time.Duration(i)/time.Duration(o.N))); err != nil {
				return err
			}
		}
		g.Go(func() (err error) {
			all[i], err = dial(ctx, o, i)
			return err
		})
	}
	err := g.Wait()
	for _, s := range all {
		if s != nil {
			w.all = append(w.all, s)
			w.done.Go(s.read)
		}
	}
	return err
}

// sources is over how many loopback addresses connections are spread: one
// address has too few ports for all of them.
const sources = 8

func dial(ctx context.Context, o order, i int) (*watched, error) {
	run := o.Runs[i%len(o.Runs)]
	target := "/internal/v1/runs/" + run + "/stream"
	if o.Cursor > 0 {
		target += "?cursor=" + strconv.FormatInt(o.Cursor, 10)
	}
	req, err := signed(ctx, http.MethodGet, o.URL, target, run, nil)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i%sources))}}
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	s := &watched{conn: conn, slow: i < o.Slow, goal: o.Until, met: make(chan struct{})}
	if s.slow {
		if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	if err := req.Write(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	in := bufio.NewReaderSize(conn, 1024)
	if s.res, err = http.ReadResponse(in, req); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if s.res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(s.res.Body, 1000)) // the status says enough
		return nil, errors.Join(fmt.Errorf("a stream was answered %d: %s", s.res.StatusCode, firstLine(string(text))), conn.Close())
	}
	s.in = bufio.NewReaderSize(s.res.Body, 1024)
	return s, nil
}

var (
	deltaMark = []byte(`"delta":"`)
	idMark    = []byte("id: ")
)

// read reads until the connection ends; a slow reader takes 1 KB a second.
func (s *watched) read() {
	if s.slow {
		for {
			if _, err := io.CopyN(io.Discard, s.in, 100); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	for {
		line, err := s.in.ReadSlice('\n')
		now := time.Now()
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
		s.line(line, now)
	}
}

func (s *watched) line(line []byte, now time.Time) {
	if after, ok := bytes.CutPrefix(line, idMark); ok {
		id, err := strconv.ParseInt(string(bytes.TrimSpace(after)), 10, 64)
		if err != nil {
			return
		}
		if s.last < s.goal && id >= s.goal {
			close(s.met)
		}
		s.last = id
		return
	}
	_, text, ok := bytes.Cut(line, deltaMark)
	stamp, _, spaced := bytes.Cut(text, []byte(" "))
	if !ok || !spaced {
		return
	}
	if made, err := strconv.ParseInt(string(stamp), 10, 64); err == nil {
		s.mu.Lock()
		s.took = append(s.took, now.Sub(time.Unix(0, made)))
		s.mu.Unlock()
	}
}

// mostPosts is how many requests are on their way at once at the most.
const mostPosts = 4000

// post sends frames: N clients as fast as they are answered, or Rate a second
// whether or not earlier ones have been.
func post(ctx context.Context, o order) (r report, err error) {
	transport := &http.Transport{MaxIdleConnsPerHost: mostPosts}
	defer transport.CloseIdleConnections()
	p := &poster{url: o.URL, client: &http.Client{Transport: transport}}
	send := func(ctx context.Context, i int) error { return p.post(ctx, o.Runs[i%len(o.Runs)]) }
	if o.Rate > 0 {
		s, err := prepare(ctx, o)
		if err != nil {
			return r, err
		}
		defer s.close()
		send = s.fire
	}
	var mu sync.Mutex
	var took, refused []time.Duration
	one := func(ctx context.Context, i int) error {
		begun := time.Now()
		err := send(ctx, i)
		mu.Lock()
		defer mu.Unlock()
		if errors.Is(err, errRefused) {
			refused = append(refused, time.Since(begun))
			return nil
		}
		took = append(took, time.Since(begun))
		return err
	}
	begun := time.Now()
	if o.Rate == 0 {
		_, err = load(ctx, o.N, o.For, 1, one)
	} else {
		err = openLoop(ctx, o, one)
	}
	r.Took, r.Done, r.Refused = time.Since(begun), len(took), len(refused)
	slices.Sort(took)
	slices.Sort(refused)
	r.P50, r.P99, r.RefusedP99 = quantile(took, .5), quantile(took, .99), quantile(refused, .99)
	return r, err
}

func openLoop(ctx context.Context, o order, one func(context.Context, int) error) error {
	var g errgroup.Group
	g.SetLimit(mostPosts)
	begun := time.Now()
	for i := 0; ; {
		due := int(min(time.Since(begun), o.For).Seconds() * o.Rate)
		for ; i < due; i++ {
			n := i
			g.Go(func() error { return one(ctx, n) })
		}
		if time.Since(begun) >= o.For {
			return g.Wait()
		}
		if err := until(ctx, time.Now().Add(time.Millisecond)); err != nil {
			return errors.Join(err, g.Wait())
		}
	}
}
