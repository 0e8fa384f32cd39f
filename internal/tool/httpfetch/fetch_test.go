package httpfetch_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/httpfetch"
	"github.com/openagentsinc/openagents-runtime/internal/tool/outbound"
)

func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func tools(t testing.TB, c httpfetch.Config, servers ...*httptest.Server) *httpfetch.Tools {
	for _, s := range servers {
		c.Guard.Exceptions = append(c.Guard.Exceptions, s.Listener.Addr().String())
	}
	h, err := httpfetch.New(c)
	require.NoError(t, err)
	return h
}

func schema(t testing.TB, raw json.RawMessage) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("s.json", doc))
	s, err := c.Compile("s.json")
	require.NoError(t, err)
	return s
}

// run calls a tool with an input that must satisfy its schema, as must the output.
func run(t testing.TB, x tool.Tool, in map[string]any) (map[string]any, error) {
	t.Helper()
	raw, err := json.Marshal(in)
	require.NoError(t, err)
	var v any
	require.NoError(t, json.Unmarshal(raw, &v))
	require.NoError(t, schema(t, x.Spec().Input).Validate(v))
	r, err := x.Run(t.Context(), tool.Call{Input: raw, IdempotencyKey: "key_1"}, func(json.RawMessage) error { return nil })
	if err != nil {
		return nil, err
	}
	var out map[string]any
	require.NoError(t, json.Unmarshal(r.Output, &out))
	require.NoError(t, schema(t, x.Spec().Output).Validate(any(out)))
	require.LessOrEqual(t, len(r.Output), x.Spec().MaxOutput)
	return out, nil
}

func refused(t testing.TB, err error, class string) *tool.Error {
	t.Helper()
	var e *tool.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, class, e.Class, "%v", err)
	return e
}

func TestAPageIsReadAsText(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/old" {
			http.Redirect(w, r, "/docs/page?x=1", http.StatusMovedPermanently)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Set-Cookie", "session=canary")
		w.Header().Set("Server", "canary")
		_, _ = io.WriteString(w, `<!doctype html><html><head><title> A  page </title><style>.x{}</style>
<script>alert("canary")</script></head><body><h1>Head &amp; shoulders</h1><p>One
 <b>bold</b>word, <a href="../up">a link</a>.</p><noscript>canary</noscript><svg><text>canary</text></svg>
<ul><li>first</li><li>second <a href="javascript:canary()">bad</a></li></ul>
<pre>  kept
   as is</pre><table><tr><td>a</td><td>b</td></tr></table><img alt="a cat" src="x"><!-- canary --></body></html>`)
	})
	out, err := run(t, tools(t, httpfetch.Config{}, s).Fetch(), map[string]any{"url": s.URL + "/old"})
	require.NoError(t, err)
	require.Equal(t, "A page", out["title"])
	require.Equal(t, "# Head & shoulders\nOne boldword, [a link]("+s.URL+"/up).\n- first\n- second bad\n"+
		"  kept\n   as is\n | a | b\n[image: a cat]", out["text"])
	require.Equal(t, s.URL+"/docs/page?x=1", out["finalUrl"])
	require.Equal(t, "text/html", out["contentType"])
	require.Equal(t, 200.0, out["status"])
	require.Equal(t, false, out["truncated"])
	require.Equal(t, `"1"`, out["headers"].(map[string]any)["etag"])
	require.NotContains(t, fmt.Sprint(out), "canary")
}

func TestBodiesBecomeUTF8(t *testing.T) {
	t.Parallel()
	bodies := map[string]struct{ kind, body, want string }{
		"/latin1":   {"text/plain; charset=iso-8859-1", "caf\xe9", "café"},
		"/meta":     {"text/html", `<meta charset="shift_jis">` + "\x83\x65\x83\x58\x83\x67", "テスト"},
		"/bom":      {"text/plain", "\xef\xbb\xbfhello", "hello"},
		"/utf16":    {"text/plain", "\xff\xfeh\x00i\x00", "hi"},
		"/utf8":     {"text/plain", "zażółć", "zażółć"},
		"/broken":   {"application/json; charset=utf-8", "{\"a\":\"\xff\"}", "{\"a\":\"\uFFFD\"}"},
		"/controls": {"text/plain", "a\x00b\x1b[31mc\r\nd\te", "ab[31mc\nd\te"},
		"/guessed":  {"", "just words", "just words"},
		"/nonsense": {"text/plain; charset=nonsense", "plain", "plain"},
		"/json":     {"application/vnd.api+json", `{"a":"<b>"}`, `{"a":"<b>"}`},
	}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b := bodies[r.URL.Path]
		if b.kind != "" {
			w.Header().Set("Content-Type", b.kind)
		}
		_, _ = io.WriteString(w, b.body)
	})
	f := tools(t, httpfetch.Config{}, s).Fetch()
	for path, b := range bodies {
		out, err := run(t, f, map[string]any{"url": s.URL + path})
		require.NoError(t, err, path)
		require.Equal(t, b.want, out["text"], path)
		require.Equal(t, float64(len(b.body)), out["bytes"], path)
	}
}

func TestOutputsAreBounded(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/umlauts":
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, strings.Repeat("ä", 3000))
		case "/quotes":
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, strings.Repeat("\"", 3000))
		case "/nested":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, strings.Repeat("<div><a href=/>", 50_000)+"end")
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Type", "text/plain")
			z := gzip.NewWriter(w)
			_, _ = z.Write(bytes.Repeat([]byte("a"), 32<<20))
			_ = z.Close()
		case "/small.png":
			w.Header().Set("Content-Type", "image/png")
			_, _ = w.Write([]byte{0x89, 'P', 'N', 'G', 0, 0xff})
		case "/large.png":
			w.Header().Set("Content-Type", "image/png")
			_, _ = w.Write(make([]byte, 3000))
		case "/br":
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Encoding", "br")
			_, _ = w.Write([]byte("xyz"))
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		}
	})
	f := tools(t, httpfetch.Config{MaxText: 2001, MaxBinary: 2000, Guard: egress.GuardConfig{MaxBytes: 1 << 20}}, s).Fetch()
	for path, want := range map[string]int{"/umlauts": 2000, "/quotes": 2001, "/bomb": 2001, "/nested": 2001} {
		out, err := run(t, f, map[string]any{"url": s.URL + path})
		require.NoError(t, err)
		require.Len(t, out["text"], want, path)
		require.Equal(t, true, out["truncated"], path)
	}
	out, err := run(t, f, map[string]any{"url": s.URL + "/umlauts", "maxBytes": 5})
	require.NoError(t, err)
	require.Equal(t, "ää", out["text"])
	out, err = run(t, f, map[string]any{"url": s.URL + "/small.png"})
	require.NoError(t, err)
	require.Equal(t, base64.StdEncoding.EncodeToString([]byte{0x89, 'P', 'N', 'G', 0, 0xff}), out["base64"])
	require.NotContains(t, out, "text")
	out, err = run(t, f, map[string]any{"url": s.URL + "/empty"})
	require.NoError(t, err)
	require.Equal(t, 204.0, out["status"])
	for _, path := range []string{"/large.png", "/br"} {
		_, err = run(t, f, map[string]any{"url": s.URL + path})
		refused(t, err, "content_unsupported")
	}
	_, err = run(t, f, map[string]any{"url": s.URL + "/small.png", "maxBytes": 3})
	refused(t, err, "content_unsupported")
}

func TestAStatusIsAnOutput(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.Header().Set("Content-Length", "1000")
			return
		}
		w.Header().Set("Retry-After", "7")
		http.Error(w, "gone", http.StatusServiceUnavailable)
	})
	f := tools(t, httpfetch.Config{}, s).Fetch()
	out, err := run(t, f, map[string]any{"url": s.URL})
	require.NoError(t, err)
	require.Equal(t, 503.0, out["status"])
	require.Equal(t, "7", out["headers"].(map[string]any)["retry-after"])
	out, err = run(t, f, map[string]any{"url": s.URL, "method": "HEAD"})
	require.NoError(t, err)
	require.Equal(t, 200.0, out["status"])
	require.Equal(t, 0.0, out["bytes"])
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
	})
	h := tools(t, httpfetch.Config{}, s)
	for url, class := range map[string]string{
		"http://127.0.0.1/": egress.PrivateAddress, "http://2130706433/": egress.InvalidURL, "file:///etc/passwd": egress.InvalidURL,
		"http://metadata.google.internal/": egress.MetadataEndpoint, s.URL: egress.MetadataEndpoint,
	} {
		_, err := run(t, h.Fetch(), map[string]any{"url": url})
		e := refused(t, err, class)
		require.Equal(t, class, e.ReasonCode)
		require.False(t, e.Retryable || e.ProviderFault || e.Unknown)
	}
	require.EqualValues(t, 1, reached.Load())
	for _, headers := range []map[string]any{
		{"authorization": "x"}, {"Cookie": "x"}, {"Host": "x"}, {"X-Forwarded-For": "127.0.0.1"}, {"Proxy-Authorization": "x"},
		{"Accept": "a\r\nX: y"}, {"accept": "ä"}, {"Connection": "x"}, {"Transfer-Encoding": "chunked"},
	} {
		_, err := run(t, h.Fetch(), map[string]any{"url": s.URL, "headers": headers})
		refused(t, err, "tool_input_invalid")
	}
	require.EqualValues(t, 1, reached.Load())
	// What the schema refuses is refused without it too.
	_, err := h.Fetch().Run(t.Context(), tool.Call{Input: json.RawMessage(`{"url":"` + s.URL + `","method":"POST"}`)}, nil)
	refused(t, err, "tool_input_invalid")
	_, err = h.Request().Run(t.Context(), tool.Call{Input: json.RawMessage(`{"url":"` + s.URL + `","method":"GET"}`)}, nil)
	refused(t, err, "tool_input_invalid")
	_, err = h.Fetch().Run(t.Context(), tool.Call{Input: json.RawMessage(`[]`)}, nil)
	refused(t, err, "tool_input_invalid")
	in := schema(t, h.Fetch().Spec().Input)
	for _, bad := range []string{`{}`, `{"url":1}`, `{"url":"x","method":"POST"}`, `{"url":"x","body":"b"}`, `{"url":"x","maxBytes":0}`} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(bad))
		require.NoError(t, err)
		require.Error(t, in.Validate(v), bad)
	}
}

func TestALostAnswerOfAWriteIsUnknown(t *testing.T) {
	t.Parallel()
	type seen struct{ method, body, kind, key string }
	got := make(chan seen, 1)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/lost":
			panic(http.ErrAbortHandler)
		case "/sent-on":
			http.Redirect(w, r, "http://10.0.0.1/", http.StatusTemporaryRedirect)
		default:
			b, _ := io.ReadAll(r.Body)
			got <- seen{r.Method, string(b), r.Header.Get("Content-Type"), r.Header.Get("Idempotency-Key")}
			w.WriteHeader(http.StatusCreated)
		}
	})
	h := tools(t, httpfetch.Config{Guard: egress.GuardConfig{Timeout: 10 * time.Second}}, s)
	post := func(path string) (map[string]any, error) {
		return run(t, h.Request(), map[string]any{"url": s.URL + path, "method": "POST", "body": "ünïcode", "contentType": "text/csv"})
	}
	out, err := post("/")
	require.NoError(t, err)
	require.Equal(t, 201.0, out["status"])
	require.Equal(t, seen{"POST", "ünïcode", "text/csv", "key_1"}, <-got)
	_, err = post("/lost")
	require.True(t, refused(t, err, "answer_incomplete").Unknown)
	_, err = post("/sent-on")
	e := refused(t, err, egress.RedirectInvalidLocation)
	require.False(t, e.Retryable)
	require.True(t, e.Unknown, "the server has seen it")
	_, err = run(t, h.Fetch(), map[string]any{"url": s.URL + "/lost"})
	e = refused(t, err, "answer_incomplete")
	require.False(t, e.Unknown)
	require.True(t, e.Retryable)
	require.False(t, e.ProviderFault, "the provider is everybody")

	spec := h.Request().Spec()
	require.True(t, spec.Writes && spec.NeedsApproval)
	require.Equal(t, tool.Reconcile, spec.Boundary)
	spec = h.Fetch().Spec()
	require.False(t, spec.Writes || spec.NeedsApproval)
	require.Equal(t, tool.SafeRetry, spec.Boundary)
}

func FuzzPage(f *testing.F) {
	f.Add([]byte("<p>x<a href='//y'>z</a>"), "text/html")
	f.Add([]byte("&#27;[31m&#0;<title>&#x1b;"), "text/html")
	f.Add([]byte("\xff\xfe<\x00"), "text/html; charset=utf-16")
	f.Fuzz(func(t *testing.T, page []byte, contentType string) {
		at := &url.URL{Scheme: "https", Host: "example.com"}
		header := http.Header{"Content-Type": {contentType}}
		read, bad := outbound.ReadPage(egress.Response{Status: 200, URL: at, Header: header, Body: page}, outbound.Reading{Text: 1 << 20})
		if bad != nil || read.Text == nil {
			return
		}
		text := read.Title + *read.Text
		require.True(t, len(text) == 0 || strings.ToValidUTF8(text, "") == text)
		require.NotContains(t, text, "\x00")
		require.NotContains(t, text, "\x1b")
	})
}
