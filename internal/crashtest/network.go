package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// relay makes the database's unix socket reachable by TCP, which toxiproxy
// needs, and stays where it is when the database comes back with another socket.
type relay struct {
	listener net.Listener
	mu       sync.Mutex
	socket   string
}

func newRelay() (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l}
	go r.serve()
	return r, nil
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) point(socket string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.socket = socket
}

func (r *relay) target() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.socket
}

func (r *relay) serve() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		go r.carry(c)
	}
}

// carry copies both ways until either side ends, then ends the other.
func (r *relay) carry(c net.Conn) {
	defer func() { _ = c.Close() }() // it may have ended by itself
	up, err := net.Dial("unix", r.target())
	if err != nil {
		return // no database: the client sees its connection end
	}
	defer func() { _ = up.Close() }()
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{up, c}, {c, up}} {
		go func() {
			_, _ = io.Copy(way[0], way[1]) // that it ended is all there is to know
			ended <- struct{}{}
		}()
	}
	<-ended
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
		toxic := fmt.Sprintf(`{"name": %q, "type": "timeout", "stream": %q, "attributes": {"timeout": 0}}`, d, d)
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			return fmt.Errorf("lose what goes %s: %w", d, err)
		}
	}
	return nil
}

// clear undoes silence and deafen; the connections that lost bytes end.
func (l *line) clear(ctx context.Context) { l.proxy.Toxics.ResetToxics(ctx) }

func (l *line) close() { l.proxy.Stop() }
