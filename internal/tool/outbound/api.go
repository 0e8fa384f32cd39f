package outbound

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// API is a provider's JSON API at a configured address.
type API struct {
	Guard    *egress.Guard
	Secrets  *secret.Store
	Provider string // whose secret it takes
	Base     *url.URL
	Header   http.Header // of every request
	// Says finds the provider's own words in the body of a refusal.
	Says func(body []byte) string
	// Reason is the reason code of what the provider did wrong.
	Reason string
	Now    func() time.Time
}

// NewAPI makes an API whose guard calls the host and port of its address alone,
// by https unless g excepts the address.
func NewAPI(provider, base string, g egress.GuardConfig, s *secret.Store) (*API, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New(provider + ": the address must be an https URL without user, query or fragment")
	}
	if s == nil {
		return nil, errors.New(provider + ": there is nowhere to get its secret from")
	}
	if u.Path == "" {
		u.Path = "/"
	}
	g.Allow, g.HTTPSOnly, g.Provider = []string{u.Hostname()}, true, provider
	g.Ports = []uint16{443}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, errors.New(provider + ": the address has no port that can be called")
		}
		g.Ports = []uint16{uint16(n)}
	}
	guard, err := egress.NewGuard(g)
	if err != nil {
		return nil, err
	}
	if err := guard.Check(u.String()); err != nil {
		return nil, errors.New(provider + ": the address cannot be called: " + err.Error())
	}
	return &API{Guard: guard, Secrets: s, Provider: provider, Base: u, Now: time.Now}, nil
}

// Ask is one request of an API.
type Ask struct {
	Method string
	Path   []string // each is escaped, so that none can name another place
	Query  url.Values
	Header http.Header
	Body   any // JSON, when not nil
	// Writes says that the request changes something. It is not sent on by a
	// redirect, which could make a question of it.
	Writes bool
}

// Do asks for a call of a tool and decodes the answer into out.
func (a *API) Do(ctx context.Context, call tool.Call, ask Ask, out any) (http.Header, *tool.Error) {
	scope := secret.Scope{Provider: a.Provider, UserID: call.UserID, RunID: call.RunID, ToolCallID: call.ToolCallID}
	token, err := a.Secrets.Get(ctx, scope)
	if err != nil {
		return nil, SecretError(err)
	}
	req := egress.Request{Method: ask.Method, URL: a.url(ask), Header: a.Header.Clone(), NoRedirects: ask.Writes}
	if req.Header == nil {
		req.Header = http.Header{}
	}
	for name, values := range ask.Header {
		req.Header[name] = values
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	if ask.Body != nil {
		if req.Body, err = json.Marshal(ask.Body); err != nil {
			return nil, &tool.Error{Class: InvalidInput, Message: "the request cannot be written as JSON"}
		}
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.Guard.Do(ctx, req)
	if err != nil {
		return nil, a.because(Error(err, ask.Writes))
	}
	if resp.Status == http.StatusUnauthorized {
		a.Secrets.Forget(scope)
	}
	says := ""
	if a.Says != nil {
		says = Line(a.Says(resp.Body), 300)
	}
	if e := Status(resp, says, a.Now(), ask.Writes); e != nil {
		return resp.Header, a.because(e)
	}
	if resp.Truncated || json.Unmarshal(resp.Body, out) != nil {
		return resp.Header, a.because(&tool.Error{
			Class: BadAnswer, Message: "the provider's answer is not the JSON that was expected",
			ProviderFault: true, Unknown: ask.Writes,
		})
	}
	return resp.Header, nil
}

func (a *API) because(e *tool.Error) *tool.Error {
	if e.ReasonCode == "" {
		e.ReasonCode = a.Reason
	}
	return e
}

func (a *API) url(ask Ask) string {
	u := *a.Base
	escaped := make([]string, len(ask.Path))
	for i, p := range ask.Path {
		escaped[i] = url.PathEscape(p)
		if p == "." || p == ".." {
			escaped[i] = strings.ReplaceAll(p, ".", "%2E")
		}
	}
	rest := strings.Join(escaped, "/")
	u.RawPath = strings.TrimSuffix(u.EscapedPath(), "/") + "/" + rest
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + strings.Join(ask.Path, "/")
	u.RawQuery = ask.Query.Encode()
	return u.String()
}

// Line is text on one line, cut after n bytes at a whole character.
func Line(text string, n int) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "\uFFFD")), " ")
	return Cut(text, n)
}

// Cut is the beginning of a text of at most n bytes, at a whole character.
func Cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}
