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
	"sync"
)

// shots are frames that were signed and written out beforehand, so that sending
// many costs the machine that it shares with the service little.
type shots struct {
	address string
	all     [][]byte

	mu   sync.Mutex
	idle []*line
}

// line is a connection between two answers.
type line struct {
	conn net.Conn
	in   *bufio.Reader
}

func prepare(ctx context.Context, o order) (*shots, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, err
	}
	s := &shots{address: u.Host}
	for i := range int(o.Rate * o.For.Seconds()) {
		req, err := frameTo(ctx, o.URL, o.Runs[i%len(o.Runs)])
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		if err := req.Write(&b); err != nil {
			return nil, err
		}
		s.all = append(s.all, b.Bytes())
	}
	return s, nil
}

// fire sends one of them and reads its answer.
func (s *shots) fire(ctx context.Context, i int) error {
	l, err := s.take(ctx)
	if err != nil {
		return err
	}
	if _, err := l.conn.Write(s.all[i%len(s.all)]); err != nil {
		return errors.Join(err, l.conn.Close())
	}
	res, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return errors.Join(err, l.conn.Close())
	}
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.Close {
		return errors.Join(err, l.conn.Close(), answered(res, answer))
	}
	s.mu.Lock()
	s.idle = append(s.idle, l)
	s.mu.Unlock()
	return answered(res, answer)
}

func (s *shots) take(ctx context.Context) (*line, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.idle); n > 0 {
		l := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return l, nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	return &line{conn, bufio.NewReaderSize(conn, 1024)}, nil
}

func (s *shots) close() {
	for _, l := range s.idle {
		_ = l.conn.Close() // nothing is on its way on it
	}
}

// answered is nil for a frame that was accepted, errRefused for one that may
// come again.
func answered(res *http.Response, answer []byte) error {
	switch res.StatusCode {
	case http.StatusAccepted:
		return nil
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if res.Header.Get("Retry-After") == "" {
			return fmt.Errorf("a refusal (%d) does not say when to come back", res.StatusCode)
		}
		return errRefused
	default:
		return fmt.Errorf("a frame was answered %d: %s", res.StatusCode, firstLine(string(answer)))
	}
}
