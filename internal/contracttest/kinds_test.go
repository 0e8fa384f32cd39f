package contracttest_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
)

// kind is one way in which a request is, or is not, as it should be.
type kind struct {
	name   string
	spoil  func(*fuzzer, *draft)
	expect func(*fuzzer, *draft, contracttest.Answer) error
	// after goes on with a request that was answered.
	after func(*fuzzer, *testing.T, contracttest.Request, contracttest.Answer) error
}

var kinds = []kind{
	{name: "valid", spoil: func(*fuzzer, *draft) {}, expect: taken},
	{name: "valid twice", spoil: func(*fuzzer, *draft) {}, expect: taken, after: again},
	{name: "wrong type", spoil: body(func(f *fuzzer, p place) { p.set(f.wrongType(p.get)) }), expect: fitsOrRefused},
	{name: "missing member", spoil: body(func(_ *fuzzer, p place) {
		if p.remove != nil {
			p.remove()
		}
	}), expect: fitsOrRefused},
	{name: "unknown member", spoil: func(f *fuzzer, d *draft) {
		if o, ok := d.value.(map[string]any); ok {
			o[f.word()+"\u00e9"] = f.anything(1)
		}
	}, expect: fitsOrRefused},
	{name: "odd text", spoil: body(func(f *fuzzer, p place) { p.set(f.unicode()) }), expect: fitsOrRefused},
	{name: "odd number", spoil: body(func(f *fuzzer, p place) { p.set(f.number()) }), expect: fitsOrRefused},
	{name: "huge", spoil: func(f *fuzzer, d *draft) {
		body(func(f *fuzzer, p place) { p.set(strings.Repeat("\u00fc", 1<<(4+f.rng.IntN(15)))) })(f, d)
		d.chunked = f.rng.IntN(2) == 0
	}, expect: fitsOrRefused},
	{name: "garbage body", spoil: garbage, expect: notServed},
	{name: "content type", spoil: contentType, expect: notServed},
	{name: "query", spoil: query},
	{name: "path", spoil: path},
	{name: "headers", spoil: headers},
	{name: "wrong token", spoil: wrongToken, expect: unauthorized},
	{name: "wrong principal", spoil: wrongPrincipal, expect: unauthorized},
	{name: "replayed token", spoil: func(*fuzzer, *draft) {}, after: replayed},
}

// taken wants that a request which fits is not refused for its form.
func taken(f *fuzzer, _ *draft, a contracttest.Answer) error {
	// What only the log knows: where a stream ends, how often an id was used.
	if slices.Contains([]string{"invalid_cursor", "tool_input_invalid"}, a.Code()) {
		return nil
	}
	if slices.Contains([]int{400, 401, 403, 408, 413, 415}, a.Status) {
		return fmt.Errorf("a request that fits is refused")
	}
	return nil
}

// fitsOrRefused wants that a body which does not fit its schema is refused.
func fitsOrRefused(f *fuzzer, d *draft, a contracttest.Answer) error {
	if f.op.MaxBodyBytes == 0 || len(d.body) == 0 {
		return nil
	}
	if f.w.Fits(f.at+"/requestBody/content/application~1json/schema", d.body) == nil {
		return nil
	}
	return notServed(f, d, a)
}

func notServed(f *fuzzer, _ *draft, a contracttest.Answer) error {
	if f.op.MaxBodyBytes > 0 && !slices.Contains([]int{400, 413, 415}, a.Status) {
		return fmt.Errorf("a body that does not fit is accepted")
	}
	return nil
}

func unauthorized(_ *fuzzer, _ *draft, a contracttest.Answer) error {
	if a.Status != http.StatusUnauthorized && a.Status != http.StatusForbidden {
		return fmt.Errorf("a caller who may not is let in")
	}
	return nil
}

// body spoils one place of the body.
func body(spoil func(*fuzzer, place)) func(*fuzzer, *draft) {
	return func(f *fuzzer, d *draft) {
		if all := places(d.value); len(all) > 0 {
			spoil(f, all[f.rng.IntN(len(all))])
		}
	}
}

// noObjects are bodies that are no JSON object as the contract has it.
var noObjects = []string{
	"[]", "null", "17", `"text"`, "{", "}", "{]", `{"a":}`, `{"a":1,"a":1}`, `{"a":1} {"b":2}`, `{'a':1}`, "{\"a\":\"\\ud800\"}",
	"{\"a\":\"\xff\xfe\"}", "\ufeff{}", `{"a":NaN}`, `{"a":01}`, `{"a":1e999}`, `{"a":9007199254740993}`, "\x00", " ",
	strings.Repeat("[", 5000) + strings.Repeat("]", 5000), strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000),
	"{\"a\":\"\t\"}", `{"a":"\x41"}`, "<xml/>", "a=1&b=2", "--boundary\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n",
}

func garbage(f *fuzzer, d *draft) {
	switch f.rng.IntN(4) {
	case 0:
		d.body = make([]byte, 1+f.rng.IntN(200))
		for i := range d.body {
			d.body[i] = byte(f.rng.Uint32())
		}
		d.body[0] = ']'
	case 1:
		whole := (&draft{value: d.value}).request(f)
		raw, ok := whole.Body.([]byte)
		if !ok || len(raw) < 3 {
			d.body = []byte("{")
			break
		}
		d.body = raw[:1+f.rng.IntN(len(raw)-2)]
	default:
		d.body = []byte(noObjects[f.rng.IntN(len(noObjects))])
	}
	d.value = nil
	d.chunked = f.rng.IntN(2) == 0
}

func contentType(f *fuzzer, d *draft) {
	if d.value == nil {
		d.body = []byte("{}")
	}
	wrong := []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=latin1",
		"application/json, application/json", "application/jsonp", "application/vnd.api+json", ";", "application/json; =", "APPLICATION/XML"}
	d.header["Content-Type"] = []string{wrong[f.rng.IntN(len(wrong))]}
	switch f.rng.IntN(4) {
	case 0:
		d.header["Content-Type"] = []string{"application/json", "application/json"}
	case 1:
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = z.Write(bytes.Repeat([]byte(" "), 1<<20)) // a buffer takes all
		_ = z.Close()
		d.body, d.value = packed.Bytes(), nil
		d.header["Content-Type"] = []string{"application/json"}
		d.header.Set("Content-Encoding", []string{"gzip", "GZIP", "identity, gzip", "br"}[f.rng.IntN(4)])
	}
}

func query(f *fuzzer, d *draft) {
	odd := []string{"", "-1", "0", "1.5", "1e3", "0x10", "007", "+1", "9007199254740992", "99999999999999999999", "abc", "%00", "%zz", "%",
		"%ff", "%F0%9F%98%80", "1%3B2", "true", "null", "[]", "%0d%0aX-Evil:1", "'%20OR%201=1--", strings.Repeat("9", 500), strings.Repeat("a", 3000)}
	value := func() string { return odd[f.rng.IntN(len(odd))] }
	switch f.rng.IntN(5) {
	case 0:
		d.query = append(d.query, [2]string{"unknown", value()})
	case 1:
		if len(d.query) > 0 {
			d.query = append(d.query, d.query[0])
		}
	case 2:
		d.query = append(d.query, [2]string{"cursor;limit", value()})
	default:
		for i := range d.query {
			d.query[i][1] = value()
		}
	}
}

func path(f *fuzzer, d *draft) {
	odd := []string{"..", ".", "-", "a b", "a/b", "a\x00b", "a\r\nb", "\u00e9", "\U0001F600", "%2e%2e", "a?b", "a#b", "';--", "{runId}", "*", "~",
		"null", strings.Repeat("a", 128), strings.Repeat("a", 129), strings.Repeat("b", 4000)}
	for name := range d.path {
		d.path[name] = odd[f.rng.IntN(len(odd))]
	}
}

func headers(f *fuzzer, d *draft) {
	odd := []string{"", " ", "-", "00-00000000000000000000000000000000-0000000000000000-00", "00-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-01",
		"ff-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-01", strings.Repeat("x", 5000), "\xff\xfe", "a=1,b=2", "-1", "1.0", "0x1f",
		"18446744073709551616", "text/plain", "chunked", "..", "\t"}
	names := []string{"traceparent", "tracestate", "x-request-id", "Last-Event-ID", "Accept", "Accept-Encoding", "Cookie", "X-Forwarded-For",
		"Range", "If-None-Match", "Content-Language", "X-HTTP-Method-Override", "Origin", "Prefer"}
	for range 1 + f.rng.IntN(4) {
		name := names[f.rng.IntN(len(names))]
		values := []string{odd[f.rng.IntN(len(odd))]}
		if f.rng.IntN(3) == 0 {
			values = append(values, odd[f.rng.IntN(len(odd))])
		}
		d.header[http.CanonicalHeaderKey(name)] = values
	}
}

func wrongToken(f *fuzzer, d *draft) {
	claims := fmt.Sprintf(`{"iat":%d,"exp":%d,"nonce":"nonce-0123456789abcdef"}`, time.Now().Unix(), time.Now().Unix()+60)
	tokens := []string{contracttest.NoToken, "v1", "v1..", "v1.e30.AAAA", "v2.e30.AAAA", "Bearer abc", "v1." + strings.Repeat("A", 9000) + ".AA",
		contracttest.SignText("another-secret-of-32-bytes-or-more!!", claims), contracttest.SignText(contracttest.Secret, claims),
		contracttest.SignText(contracttest.Secret, "[]"), contracttest.SignText(contracttest.Secret, "null"),
		contracttest.SignText(contracttest.Secret, `{"kid":"k1","kid":"k1"}`), "\xff\xff", "v1.e30.AAAA.BBBB"}
	changes := []func(*auth.Claims){
		func(c *auth.Claims) { c.Method = "DELETE" }, func(c *auth.Claims) { c.Target += "x" },
		func(c *auth.Claims) { c.BodySHA256 = auth.BodyHash([]byte("another")) }, func(c *auth.Claims) { c.Audience = "elsewhere" },
		func(c *auth.Claims) { c.ExpiresAt = time.Now().Unix() + 100_000 }, func(c *auth.Claims) { c.IssuedAt = time.Now().Unix() - 1000; c.ExpiresAt = c.IssuedAt + 60 },
		func(c *auth.Claims) { c.IssuedAt = time.Now().Unix() + 100; c.ExpiresAt = c.IssuedAt + 60 },
	}
	if n := f.rng.IntN(len(tokens) + len(changes)); n < len(tokens) {
		d.token = tokens[n]
	} else {
		d.claims = changes[n-len(tokens)]
	}
	if f.rng.IntN(10) == 0 && f.op.Scope != "read" {
		d.token, d.claims, d.scope = "", nil, auth.Read
	}
}

func wrongPrincipal(f *fuzzer, d *draft) {
	values := []string{"0", "-1", "2", "01", "1.0", "+1", "9223372036854775808", "abc", "1,2"}
	if d.guest == "" {
		d.header[http.CanonicalHeaderKey(auth.UserHeader)] = []string{values[f.rng.IntN(len(values))]}
	} else {
		d.header[http.CanonicalHeaderKey(auth.GuestHeader)] = []string{[]string{"other", "a b", "", strings.Repeat("g", 200), "\xff"}[f.rng.IntN(5)]}
	}
	if f.rng.IntN(5) == 0 {
		d.header[http.CanonicalHeaderKey(auth.UserHeader)] = []string{"1", "1"}
	}
}

// again sends a request that was carried out once more, signed anew: it changes
// nothing and succeeds.
func again(f *fuzzer, t *testing.T, q contracttest.Request, first contracttest.Answer) error {
	if first.Status >= 300 {
		return nil
	}
	second, err := f.w.Send(t, q)
	switch {
	case err != nil:
		return err
	case second.Status >= 300:
		return fmt.Errorf("the same again was answered %d %s, after %d", second.Status, second.Body, first.Status)
	case f.op.ID == "startRun" && second.Header.Get("Idempotent-Replay") != "true",
		f.op.ID == "appendFrame" && !bytes.Contains(second.Body, []byte(`"idempotentReplay":true`)):
		return fmt.Errorf("the same again is taken for something new: %s", second.Body)
	}
	return f.w.Check(second)
}

// replayed sends a request that was let in once more, to the letter.
func replayed(f *fuzzer, t *testing.T, q contracttest.Request, _ contracttest.Answer) error {
	token := f.w.Headers(t, q).Get(auth.SignatureHeader)
	q.Token = token
	first, err := f.w.Send(t, q)
	if err != nil {
		return err
	}
	second, err := f.w.Send(t, q)
	if err != nil {
		return err
	}
	if first.Status < 300 && second.Status != http.StatusUnauthorized {
		return fmt.Errorf("a token is taken twice: %d, then %d", first.Status, second.Status)
	}
	return f.w.Check(second)
}
