package l402

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
	"gopkg.in/macaroon.v2"

	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/wallet"
)

// credential is what was paid for: a token, and the preimage that makes it good. It
// is worth what it cost, and is shown to nobody but the server that sold it.
type credential struct {
	scheme   string
	token    string
	preimage wallet.Preimage
}

// header is what goes to the server.
func (c credential) header() string { return c.scheme + " " + c.token + ":" + c.preimage.Hex() }

func (c credential) String() string { return "[credential]" }

// spellings are the texts that a server could repeat it in.
func (c credential) spellings() []string {
	hexed := c.preimage.Hex()
	all := []string{
		c.token, hexed, strings.ToUpper(hexed),
		base64.RawStdEncoding.EncodeToString(c.preimage[:]), base64.RawURLEncoding.EncodeToString(c.preimage[:]),
	}
	if raw, err := macaroon.Base64Decode([]byte(c.token)); err == nil {
		all = append(all, base64.RawStdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw))
	}
	return all
}

// hide takes it out of a text.
func (c credential) hide(text string) string {
	var known redact.Known
	for _, s := range c.spellings() {
		known.Add(s)
	}
	return known.Text(text)
}

// longest is more than it takes up in any spelling, each character written as an
// escape of six.
func (c credential) longest() int { return 6 * 2 * len(c.header()) }

// where is a place that a credential is good for: a path of an origin, in one run.
type where struct {
	run          uuid.UUID
	origin, path string
}

func place(run uuid.UUID, rawURL string) where {
	u, err := url.Parse(rawURL)
	if err != nil {
		return where{run: run, origin: rawURL}
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return where{run, u.Scheme + "://" + host + ":" + port, u.EscapedPath()}
}

// credentials are kept in memory alone, the newest of them.
type credentials struct {
	most int

	mu    sync.Mutex
	of    map[where]credential
	order []where // oldest first
}

func (k *credentials) find(at where) (credential, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, there := k.of[at]
	return c, there
}

func (k *credentials) keep(at where, c credential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil {
		k.of = map[where]credential{}
	}
	k.drop(at)
	for len(k.order) >= k.most {
		k.drop(k.order[0])
	}
	k.of[at] = c
	k.order = append(k.order, at)
}

// forget drops a credential that is not taken any more, unless another has come in
// its place.
func (k *credentials) forget(at where, c credential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of[at] == c {
		k.drop(at)
	}
}

func (k *credentials) drop(at where) {
	if _, there := k.of[at]; there {
		delete(k.of, at)
		k.order = slices.DeleteFunc(k.order, func(w where) bool { return w == at })
	}
}
