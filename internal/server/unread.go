package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// unreadable is how net/http answers what it cannot read as a request: a status
// line, these two headers and nothing else, in one write before any handler.
const unreadable = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"

// enveloped is a connection on which even those answers have the envelope. It
// has a place at its listener until it is closed, by whomever.
type enveloped struct {
	net.Conn
	l      *limited
	closed atomic.Bool
}

func (c *enveloped) Close() error {
	if !c.closed.Swap(true) {
		<-c.l.places
	}
	return c.Conn.Close()
}

// Again has the listener accept the connection once more, with what was read of
// it coming first: whoever took it over is done, and the client has sent another
// request. false says that the listener takes no more.
func (c *enveloped) Again(read []byte) bool {
	if c.closed.Swap(true) {
		return false
	}
	next := &enveloped{Conn: &reread{Conn: c.Conn, first: read}, l: c.l}
	if c.Conn.SetDeadline(time.Time{}) == nil {
		select {
		case c.l.again <- next:
			return true
		case <-c.l.closed:
		}
	}
	c.closed.Store(false)
	return false
}

// reread is a connection of which some bytes were read before.
type reread struct {
	net.Conn
	first []byte
}

func (c *reread) Read(b []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.first)
	c.first = c.first[n:]
	return n, nil
}

// SetLinger is the TCP connection's.
func (c *reread) SetLinger(seconds int) error { return setLinger(c.Conn, seconds) }

// SetLinger is the TCP connection's: a stream over HTTP/1.0 ends early by a reset.
func (c *enveloped) SetLinger(seconds int) error { return setLinger(c.Conn, seconds) }

func setLinger(c net.Conn, seconds int) error {
	if tcp, ok := c.(interface{ SetLinger(int) error }); ok {
		return tcp.SetLinger(seconds)
	}
	return nil
}

func (c *enveloped) Write(b []byte) (int, error) {
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 ")) {
		return c.Conn.Write(b)
	}
	line, text, ok := bytes.Cut(b, []byte(unreadable))
	if !ok || bytes.Contains(line, []byte("\n")) {
		return c.Conn.Write(b)
	}
	answer, err := unreadAnswer(string(line[len("HTTP/1.1 "):]), string(text))
	if err != nil {
		return 0, err
	}
	if _, err := c.Conn.Write(answer); err != nil {
		return 0, err
	}
	return len(b), nil
}

// unreadAnswer tells the same in a status and code of the contract.
func unreadAnswer(status, text string) ([]byte, error) {
	code, message := api.InvalidRequest, "the request cannot be read as HTTP/1.1: "+text
	if n, _ := strconv.Atoi(status[:min(3, len(status))]); n == http.StatusRequestHeaderFieldsTooLarge {
		code, message = api.PayloadTooLarge, "the request's header is too large"
	}
	trace := telemetry.NewTrace("", "", "")
	body, err := json.Marshal(api.ErrorEnvelope{Error: api.Error{
		Code: code, Message: message, Details: map[string]any{}, RequestID: trace.RequestID,
	}})
	if err != nil {
		return nil, err
	}
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX-Request-Id: %s\r\nTraceparent: %s\r\nConnection: close\r\n\r\n",
		code.Status(), http.StatusText(code.Status()), len(body), trace.RequestID, trace.Parent)
	return append([]byte(head), body...), nil
}
