package server

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// HTTPConfig bounds what a connection may cost. Zero values mean the defaults.
type HTTPConfig struct {
	ReadHeaderTimeout time.Duration // for the whole header to arrive; 5 s
	IdleTimeout       time.Duration // between two requests of a connection; 75 s
	MaxHeaderBytes    int           // of a request's header; 32 kB
	MaxConns          int           // open at once on a listener; 12,000, more than a process has streams
}

func (c HTTPConfig) withDefaults() HTTPConfig {
	if c.ReadHeaderTimeout == 0 {
		c.ReadHeaderTimeout = 5 * time.Second
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 75 * time.Second
	}
	if c.MaxHeaderBytes == 0 {
		c.MaxHeaderBytes = 32 << 10
	}
	if c.MaxConns == 0 {
		c.MaxConns = 12_000
	}
	return c
}

// Validate reports a setting that cannot work.
func (c HTTPConfig) Validate() error {
	if c.ReadHeaderTimeout < 0 || c.IdleTimeout < 0 || c.MaxHeaderBytes < 0 || c.MaxConns < 0 {
		return errors.New("listener: a limit is negative")
	}
	return nil
}

// HTTPServer makes a server around a handler. It has no write timeout, which
// would end streams; every answer sets its own deadline.
func HTTPServer(handler http.Handler, c HTTPConfig, log *slog.Logger) *http.Server {
	c = c.withDefaults()
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: c.ReadHeaderTimeout, IdleTimeout: c.IdleTimeout, MaxHeaderBytes: c.MaxHeaderBytes,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		// Every path is answered by the handler, OPTIONS * included.
		DisableGeneralOptionsHandler: true,
	}
}

// Serve answers the connections of a listener until the server is shut down. It
// bounds how many are open at once: further ones wait in the kernel's queue
// until one closes.
func Serve(s *http.Server, l net.Listener, c HTTPConfig) error {
	bounded := &limited{
		Listener: l, places: make(chan struct{}, c.withDefaults().MaxConns), closed: make(chan struct{}),
		fresh: make(chan accepted), again: make(chan *enveloped),
	}
	go bounded.pump()
	return s.Serve(bounded)
}

type limited struct {
	net.Listener
	places chan struct{}
	once   sync.Once
	closed chan struct{}
	fresh  chan accepted
	again  chan *enveloped // connections that were taken over and have another request
}

type accepted struct {
	conn *enveloped
	err  error
}

// pump accepts new connections while there are places.
func (l *limited) pump() {
	for {
		select {
		case l.places <- struct{}{}:
		case <-l.closed:
			return
		}
		var a accepted
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.places
			a.err = err
		} else {
			a.conn = &enveloped{Conn: c, l: l}
		}
		select {
		case l.fresh <- a:
		case <-l.closed:
			if a.conn != nil {
				_ = a.conn.Close() // it was never served
			}
			return
		}
	}
}

// Accept gives the next connection, a new one or one that comes back.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case c := <-l.again:
		return c, nil
	case a := <-l.fresh:
		if a.err != nil {
			return nil, a.err
		}
		return a.conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
