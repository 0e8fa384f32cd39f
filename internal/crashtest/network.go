package main

import (
	"context"
	"fmt"
	"strings"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

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
