package contracttest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

// Request is one call. It is signed for what it is, as scope service and as
// user 1 unless it says otherwise.
type Request struct {
	Method string // GET when empty
	Target string
	Body   any // []byte and string are sent as they are, other values as JSON
	Header http.Header

	User  int64  // the principal; 0 and no Guest means user 1
	Guest string // sent and signed as guest scope
	// Nobody leaves the principal out.
	Nobody bool
	Scope  auth.Scope // service when empty
	// Claims changes what is signed.
	Claims func(*auth.Claims)
	// SignedAt is now when zero.
	SignedAt time.Time
	// Token is sent instead of a signed one; NoToken sends none.
	Token string
	// Chunked sends the body without saying how long it is.
	Chunked bool
	// StopAfter ends the reading of a stream when its text has this; a stream is
	// otherwise read to its end.
	StopAfter string
}

// NoToken is a Request's Token for a call without one.
const NoToken = "-"

// Answer is what came back.
type Answer struct {
	Operation string // "" when the request had no route
	Status    int
	Header    http.Header
	Body      []byte
	// Cut says that the connection broke before the body's end.
	Cut bool
}

// Code is the error code of an error answer, else "".
func (a Answer) Code() string { return a.envelope().Code }

// Reason is details.reason of an error answer, else "".
func (a Answer) Reason() string { s, _ := a.envelope().Details["reason"].(string); return s }

// Details are the facts of an error answer.
func (a Answer) Details() map[string]any { return a.envelope().Details }

type envelope struct {
	Code      string         `json:"code"`
	Message   string         `json:"message"`
	Details   map[string]any `json:"details"`
	RequestID string         `json:"requestId"`
}

func (a Answer) envelope() envelope {
	var e struct{ Error envelope }
	if json.Unmarshal(a.Body, &e) != nil {
		return envelope{}
	}
	return e.Error
}

// Into reads the answer's body.
func (a Answer) Into(t testing.TB, to any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(a.Body, to), string(a.Body))
}

// Do sends a request and checks the answer against the contract.
func (r *Rig) Do(t testing.TB, q Request) Answer {
	t.Helper()
	a, err := r.Send(t, q)
	require.NoError(t, err)
	require.NoError(t, r.checker.Check(a), "%s %s answered %d: %s", q.method(), q.Target, a.Status, a.Body)
	return a
}

// Send sends a request and leaves the answer unchecked.
func (r *Rig) Send(t testing.TB, q Request) (Answer, error) {
	t.Helper()
	body := q.bytes(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req := &http.Request{
		Method: q.method(), URL: &url.URL{Scheme: "http", Host: r.Address, Opaque: q.Target},
		Host: r.Address, Header: r.Headers(t, q), ContentLength: int64(len(body)), Body: http.NoBody,
	}
	if q.Chunked {
		req.ContentLength = -1
	}
	if len(body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp, err := r.client.Do(req.WithContext(ctx))
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	a := Answer{Operation: operationOf(q.method(), q.Target), Status: resp.StatusCode, Header: resp.Header}
	a.Body, err = readUntil(resp.Body, q.StopAfter)
	a.Cut = err != nil
	return a, nil
}

// readUntil reads a body, or a part of it that ends with a text.
func readUntil(body io.Reader, stop string) ([]byte, error) {
	if stop == "" {
		return io.ReadAll(body)
	}
	var read []byte
	for buffer := make([]byte, 4096); ; {
		n, err := body.Read(buffer)
		read = append(read, buffer[:n]...)
		if err == io.EOF || bytes.Contains(read, []byte(stop)) {
			return read, nil
		}
		if err != nil {
			return read, err
		}
	}
}

func (q Request) method() string {
	if q.Method == "" {
		return http.MethodGet
	}
	return q.Method
}

func (q Request) bytes(t testing.TB) []byte {
	switch b := q.Body.(type) {
	case nil:
		return nil
	case []byte:
		return b
	case string:
		return []byte(b)
	default:
		raw, err := json.Marshal(b)
		require.NoError(t, err)
		return raw
	}
}

// Headers are a request's headers, token included.
func (r *Rig) Headers(t testing.TB, q Request) http.Header {
	t.Helper()
	h := http.Header{}
	c := r.claimsOf(t, q)
	if c.UserID != nil {
		h.Set(auth.UserHeader, strconv.FormatInt(*c.UserID, 10))
	}
	if c.GuestScope != "" {
		h.Set(auth.GuestHeader, c.GuestScope)
	}
	if q.Body != nil {
		h.Set("Content-Type", "application/json")
	}
	if q.Claims != nil {
		q.Claims(&c)
	}
	switch q.Token {
	case NoToken:
	case "":
		at := q.SignedAt
		if at.IsZero() {
			at = time.Now()
		}
		h.Set(auth.SignatureHeader, r.sign(t, c, at))
	default:
		h.Set(auth.SignatureHeader, q.Token)
	}
	for name, values := range q.Header {
		h[http.CanonicalHeaderKey(name)] = values
	}
	return h
}

// sign makes a token also of claims that auth.Sign would not sign.
func (r *Rig) sign(t testing.TB, c auth.Claims, at time.Time) string {
	t.Helper()
	token, err := auth.Sign(r.Keys, c, at)
	if err == nil {
		return token
	}
	c.KeyID, c.Nonce = cmp.Or(c.KeyID, "k1"), cmp.Or(c.Nonce, rand.Text())
	c.IssuedAt = cmp.Or(c.IssuedAt, at.Unix())
	c.ExpiresAt = cmp.Or(c.ExpiresAt, c.IssuedAt+60)
	claims, err := json.Marshal(c)
	require.NoError(t, err)
	return SignText(Secret, string(claims))
}

func (r *Rig) claimsOf(t testing.TB, q Request) auth.Claims {
	c := auth.Claims{
		Audience: Audience, Scope: q.Scope, Actor: "contracttest", Method: q.method(), Target: q.Target,
		BodySHA256: auth.BodyHash(q.bytes(t)), GuestScope: q.Guest,
	}
	if c.Scope == "" {
		c.Scope = auth.Service
	}
	if q.User == 0 && q.Guest == "" && !q.Nobody {
		q.User = 1
	}
	if q.User != 0 {
		c.UserID = &q.User
	}
	path, _, _ := strings.Cut(q.Target, "?")
	steps := strings.Split(strings.Replace(path, "/spend/reservations/", "/runs/", 1), "/")
	if len(steps) > 4 {
		id, err := url.PathUnescape(steps[4])
		switch {
		case err != nil:
		case steps[3] == "runs":
			c.RunID = id
		case steps[3] == "threads":
			c.ThreadID = id
		}
	}
	return c
}

// SignText makes a token of claims that auth.Sign would not make.
func SignText(secret, claims string) string {
	p := base64.RawURLEncoding.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(p))
	return "v1." + p + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// operationOf is the operation that a request is for, or "".
func operationOf(method, target string) string {
	path, _, _ := strings.Cut(target, "?")
	sent := strings.Split(path, "/")
	for _, op := range api.Operations() {
		want := strings.Split(op.Path, "/")
		if op.Method != method || len(want) != len(sent) {
			continue
		}
		fits := true
		for i := range want {
			isParameter := strings.HasPrefix(want[i], "{")
			fits = fits && (want[i] == sent[i] || isParameter && sent[i] != "")
		}
		if fits {
			return op.ID
		}
	}
	return ""
}
