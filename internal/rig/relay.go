package rig

import (
	"io"
	"net"
	"sync"
)

// Relay makes the database's unix socket reachable by TCP, which toxiproxy
// needs, and stays where it is when the database comes back with another socket.
type Relay struct {
	listener net.Listener
	mu       sync.Mutex
	socket   string
	answers  func(to io.Writer, from io.Reader)
}

// NewRelay begins to listen. Nobody is behind it before Point.
func NewRelay() (*Relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{listener: l}
	go r.serve()
	return r, nil
}

// Address is where it listens: host:port.
func (r *Relay) Address() string { return r.listener.Addr().String() }

// Point sets the socket that new connections go to.
func (r *Relay) Point(socket string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.socket = socket
}

// Answers has what the database says on connections that begin from now on
// copied by f, until either side ends; nil copies it as it is.
func (r *Relay) Answers(f func(to io.Writer, from io.Reader)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers = f
}

// Close ends the listening; connections that are open go on.
func (r *Relay) Close() error { return r.listener.Close() }

func (r *Relay) target() (socket string, answers func(io.Writer, io.Reader)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.socket, r.answers
}

func (r *Relay) serve() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		go r.carry(c)
	}
}

// carry copies both ways until either side ends, then ends the other.
func (r *Relay) carry(c net.Conn) {
	defer func() { _ = c.Close() }() // it may have ended by itself
	socket, answers := r.target()
	up, err := net.Dial("unix", socket)
	if err != nil {
		return // no database: the client sees its connection end
	}
	defer func() { _ = up.Close() }()
	ended := make(chan struct{}, 2)
	go func() {
		_, _ = io.Copy(up, c) // that it ended is all there is to know
		ended <- struct{}{}
	}()
	go func() {
		if answers != nil {
			answers(c, up)
		} else {
			_, _ = io.Copy(c, up)
		}
		ended <- struct{}{}
	}()
	<-ended
}
