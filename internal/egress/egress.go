// Package egress makes the one HTTP client that leaves the building.
package egress

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Config is how far a call may go. Zero values take the defaults.
type Config struct {
	ConnectTimeout        time.Duration // name lookup and TCP; 5 s
	TLSTimeout            time.Duration // 5 s
	ResponseHeaderTimeout time.Duration // from request sent to headers read; 60 s
	IdleTimeout           time.Duration // unused connections are kept that long; 90 s
	// Timeout ends the whole exchange, body included. Zero sets none: a stream
	// lasts until its context ends.
	Timeout time.Duration

	MaxResponseHeaderBytes int64 // 64 KiB
	MaxConnsPerHost        int   // 0: as many as asked for

	// Proxy is the only way to go through one; the environment is not asked.
	Proxy *url.URL
	// RootCAs are the only authorities whose certificates are taken; the system's
	// when nil.
	RootCAs *x509.CertPool

	// HostClasses gives a host, as name or name:port, the word it is counted
	// under. All others are counted as "other", so the words stay few.
	HostClasses map[string]string
	// Observe, when given, hears of each call once its headers are here or it
	// has failed. It is called from the caller's goroutine and must be quick.
	Observe func(Call)
}

// Call is what Observe hears.
type Call struct {
	HostClass string
	Outcome   Outcome
	Duration  time.Duration
}

// Validate says what cannot be meant.
func (c Config) Validate() error {
	for name, d := range map[string]time.Duration{
		"connect": c.ConnectTimeout, "TLS": c.TLSTimeout, "response header": c.ResponseHeaderTimeout,
		"idle": c.IdleTimeout, "whole": c.Timeout,
	} {
		if d < 0 {
			return fmt.Errorf("egress: the %s timeout is below zero", name)
		}
	}
	if c.MaxResponseHeaderBytes < 0 || c.MaxConnsPerHost < 0 {
		return errors.New("egress: a limit is below zero")
	}
	if c.Proxy != nil && (c.Proxy.Host == "" || c.Proxy.Scheme != "http" && c.Proxy.Scheme != "https" && c.Proxy.Scheme != "socks5") {
		return errors.New("egress: the proxy's address must be an http, https or socks5 URL")
	}
	return nil
}

// New makes a client. It sends the context's trace along, follows no redirect
// (the answer is the redirect itself, so credentials go where they were meant
// to go) and hands bodies on as they come, not decompressed.
func New(c Config) *http.Client {
	return &http.Client{
		Transport: &tripper{next: transport(c), classes: c.HostClasses, otherwise: otherHosts, observe: c.Observe},
		Timeout:   c.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

func transport(c Config) *http.Transport {
	dialer := &net.Dialer{Timeout: orDefault(c.ConnectTimeout, 5*time.Second), KeepAlive: 30 * time.Second}
	t := &http.Transport{
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    orDefault(c.TLSTimeout, 5*time.Second),
		ResponseHeaderTimeout:  orDefault(c.ResponseHeaderTimeout, time.Minute),
		IdleConnTimeout:        orDefault(c.IdleTimeout, 90*time.Second),
		MaxResponseHeaderBytes: orDefault(c.MaxResponseHeaderBytes, 64<<10),
		MaxConnsPerHost:        c.MaxConnsPerHost,
		MaxIdleConnsPerHost:    16,
		DisableCompression:     true,
	}
	if c.RootCAs != nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.RootCAs}
	}
	if c.Proxy != nil {
		t.Proxy = http.ProxyURL(c.Proxy)
	}
	return t
}

func orDefault[T ~int64](v, fallback T) T {
	if v == 0 {
		return fallback
	}
	return v
}
