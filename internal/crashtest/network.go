package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// tamper makes connections that begin from now on bring each notification so
// many times, so late. nil leaves them alone.
func (d *database) tamper(with func() (copies int, late time.Duration)) {
	if with == nil {
		d.Relay().Answers(nil)
		return
	}
	d.Relay().Answers(func(to io.Writer, from io.Reader) { tampered(to, from, with) })
}

// tampered copies the database's messages until either side ends, but
// notifications so often and so late as it is told.
func tampered(to io.Writer, from io.Reader, notes func() (copies int, late time.Duration)) {
	const notification = 'A'
	var mu sync.Mutex
	out, in := bufio.NewWriter(to), bufio.NewReader(from)
	send := func(flush bool, parts ...[]byte) error {
		mu.Lock()
		defer mu.Unlock()
		for _, b := range parts {
			if _, err := out.Write(b); err != nil {
				return err
			}
		}
		if flush {
			return out.Flush()
		}
		return nil
	}
	for {
		message := make([]byte, 5) // its type, and its length without that
		if _, err := io.ReadFull(in, message); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(message[1:])-4)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if message[0] != notification {
			if send(in.Buffered() == 0, message, body) != nil {
				return
			}
			continue
		}
		copies, late := notes()
		for range copies {
			time.AfterFunc(late, func() { _ = send(true, message, body) }) // a client that has gone wants none
		}
		if send(true) != nil {
			return
		}
	}
}

// line is the network between one process and the database, which can be hurt.
type line struct{ proxy *toxiproxy.Proxy }

var toxics = toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())

func newLine(name, upstream string) (*line, error) {
	p := toxiproxy.NewProxy(toxics, name, "127.0.0.1:0", upstream)
	if err := p.Start(); err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	return &line{p}, nil
}

func (l *line) address() string { return l.proxy.Listen }

// cut ends every connection and refuses new ones until mend.
func (l *line) cut() { l.proxy.Stop() }

// mend undoes a cut.
func (l *line) mend() error { return l.proxy.Start() }

// silence loses every byte in both directions, with no word to either side.
func (l *line) silence() error { return l.deafen("upstream", "downstream") }

// deafen loses every byte in some directions: downstream is what the database
// answers.
func (l *line) deafen(directions ...string) error {
	for _, d := range directions {
		if err := l.toxic(fmt.Sprintf(`{"name": %q, "type": "timeout", "stream": %q, "attributes": {"timeout": 0}}`, d, d)); err != nil {
			return err
		}
	}
	return nil
}

// slow delays what the database answers by 100 ms, give or take as much.
func (l *line) slow() error {
	return l.toxic(`{"name": "slow", "type": "latency", "stream": "downstream", "attributes": {"latency": 100, "jitter": 100}}`)
}

// limit ends every connection when it has brought the database so many more bytes.
func (l *line) limit(bytes int) error {
	return l.toxic(fmt.Sprintf(`{"name": "limit", "type": "limit_data", "stream": "upstream", "attributes": {"bytes": %d}}`, bytes))
}

func (l *line) toxic(what string) error {
	if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(what)); err != nil {
		return fmt.Errorf("hurt a line with %s: %w", what, err)
	}
	return nil
}

// clear undoes silence and deafen; the connections that lost bytes end.
func (l *line) clear(ctx context.Context) { l.proxy.Toxics.ResetToxics(ctx) }

func (l *line) close() { l.proxy.Stop() }
