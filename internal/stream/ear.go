package stream

import (
	"net"
	"sync"
	"time"
)

const (
	maxHeard = 4 << 10          // bytes that a client may send before its stream has ended
	lingers  = 75 * time.Second // that a connection without a request is kept, as the HTTP server does
)

// ear hears what a client sends on a connection that its stream has taken over:
// that it has gone, or, when the stream is over, its next request. Then the
// connection goes back to the listener.
type ear struct {
	conn net.Conn

	mu    sync.Mutex
	heard []byte
	ended bool // the stream is over and its body whole
	deaf  bool // nobody listens any more
}

// again is a connection that can go back to its listener.
type again interface{ Again(read []byte) bool }

// listen reads until the connection ends or goes back. gone tells the stream
// that its client has left.
func (e *ear) listen(gone func()) {
	defer gone()
	var some [16]byte
	for {
		n, err := e.conn.Read(some[:])
		e.mu.Lock()
		e.heard = append(e.heard, some[:n]...)
		heard, ended := len(e.heard), e.ended
		e.deaf = !ended && (err != nil || heard > maxHeard)
		stop := e.deaf
		e.mu.Unlock()
		switch {
		case ended && heard > 0:
			if !e.conn.(again).Again(e.heard) {
				_ = e.conn.Close() // the process stops: the client sends its request to another
			}
			return
		case ended && err != nil:
			_ = e.conn.Close() // it has gone, or says nothing
			return
		case stop:
			return
		}
	}
}

// over notes that the body is whole, and says whether the connection may be used
// again; else it is to be closed.
func (e *ear) over() bool {
	if _, ok := e.conn.(again); !ok {
		return false // of another server
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	wait := lingers
	if len(e.heard) > 0 {
		wait = 0 // the next request has begun: the reading stops, and it goes back
	}
	return !e.deaf && e.conn.SetReadDeadline(time.Now().Add(wait)) == nil
}
