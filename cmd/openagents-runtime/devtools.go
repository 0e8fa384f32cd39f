package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// storyPage is what the first run reads.
const storyPage = `<!doctype html>
<html lang="en"><head><title>The lighthouse</title></head>
<body><h1>The lighthouse</h1>
<p>The keeper wrote every night into a log: which ships had passed, and that the lamp had burnt.
When the lamp was out he wrote that too.</p></body></html>
`

// servePage serves a page on loopback for http.fetch to read.
func servePage() (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("serve a page: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, storyPage) // a caller that has gone reads nothing
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second}
	go func() { _ = s.Serve(l) }() // ends with stop
	return l.Addr().String(), func() { _ = s.Close() }, nil
}

// letReach names what tools may reach on this machine: a page, and how this process
// is. What RUNTIME_EGRESS_ALLOW says stands in its place.
func (c *config) letReach(page string) {
	if len(c.Tools.EgressAllow) > 0 {
		return
	}
	c.Tools.EgressAllow = []string{page}
	host, port, err := net.SplitHostPort(c.OpsAddr)
	if ip := net.ParseIP(host); err == nil && port != "0" && ip.IsLoopback() {
		c.Tools.EgressAllow = append(c.Tools.EgressAllow, c.OpsAddr)
	}
}

// nameExample writes a file of MCP servers that names this program's example, unless
// RUNTIME_MCP_SERVERS names one.
func (c *config) nameExample() error {
	if c.MCP.Servers != "" {
		return nil
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("name the example of an MCP server: %w", err)
	}
	file, err := json.MarshalIndent(exampleServers(program), "", "  ")
	if err != nil {
		return err
	}
	c.MCP.Servers = filepath.Join(c.DevDir, "mcp-servers.json")
	if err := os.WriteFile(c.MCP.Servers, append(file, '\n'), 0o644); err != nil {
		return fmt.Errorf("name the example of an MCP server: %w", err)
	}
	return nil
}

// listed waits until every MCP server has told its tools, or has failed to.
func (s *service) listed(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for {
		var waits bool
		var failed []error
		for _, st := range s.mcp.Status() {
			switch {
			case st.Problem != "":
				failed = append(failed, fmt.Errorf("%s: %s", st.Name, st.Problem))
			case len(st.Tools)+len(st.Refused)+st.Ignored == 0:
				waits = true
			}
		}
		if !waits {
			return errors.Join(failed...)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return errors.New("a server has not told its tools yet")
		}
	}
}
