package redact_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/redact"
)

const preimage = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

var (
	macaroon = base64.RawURLEncoding.EncodeToString([]byte("\x02\x01\x03lnd\x02\x42\x03\x0a\x10aaaaaaaaaaaaaaaa\x12\x010\x00\x00\x06\x20bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"))
	pem      = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY\n-----END EC PRIVATE KEY-----"
)

// secrets are of a known shape: they are found with nothing around them.
var secrets = map[string]string{
	"openai":       "sk-proj-Ab3dEf6hIj9kLmN0pQrS",
	"old openai":   "sk-abcdefghij0123456789",
	"anthropic":    "sk-ant-api03-Zk3xYw9vUt8sRq7p",
	"github":       "ghp_0123456789abcdefghijABCDEFGHIJ012345",
	"github fine":  "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
	"slack":        "xoxb-123456789012-abcdefghijkl",
	"aws":          "AKIAIOSFODNN7EXAMPLE",
	"google":       "AIzaSyA1234567890abcdefghijklmnopqrstuv",
	"resend":       "re_AbCdEf12_3456789012345678abcdef",
	"webhook":      "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
	"stripe":       "sk_live_0123456789abcdef",
	"jwt":          "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
	"cashu":        "cashuAeyJ0b2tlbiI6W3sicHJvb2ZzIjpbeyJpZCI6",
	"nostr":        "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5",
	"lnd macaroon": macaroon,
	"lnd hex":      "0201036c6e6402420a03" + preimage,
	"lnd connect":  "lndconnect://node.example:10009?cert=MIIC&macaroon=AgEDbG5kAvgBAwoQ",
	"pem":          pem,
}

// wrapped are ways in which a secret is written down.
var wrappings = map[string]func(string) string{
	"alone":      func(s string) string { return s },
	"in prose":   func(s string) string { return "use " + s + ", please." },
	"quoted":     func(s string) string { return `it is "` + s + `"` },
	"in a URL":   func(s string) string { return "https://example.com/?x=" + url.QueryEscape(s) + "&y=1" },
	"percent":    func(s string) string { return percent(s) },
	"percent²":   func(s string) string { return url.QueryEscape(percent(s)) },
	"base64":     func(s string) string { return base64.StdEncoding.EncodeToString([]byte("the key is " + s)) },
	"base64 raw": func(s string) string { return "data " + base64.RawURLEncoding.EncodeToString([]byte(s)) + "." },
	"base64²": func(s string) string {
		return base64.StdEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString([]byte(s))))
	},
	"JSON": func(s string) string { return string(must(json.Marshal(map[string]string{"note": s}))) },
	"JSON²": func(s string) string {
		return string(must(json.Marshal(string(must(json.Marshal(map[string]string{"note": s}))))))
	},
	"unicode esc": func(s string) string { return unicodeEscapes(s) },
	"invisible":   func(s string) string { return strings.Join(strings.Split(s, ""), "\u200b") },
	"full width":  func(s string) string { return strings.Map(wide, s) },
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func wide(r rune) rune {
	if r > ' ' && r < 0x7f {
		return r + 0xfee0
	}
	return r
}

func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

func unicodeEscapes(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, `\u%04x`, s[i])
	}
	return b.String()
}

func TestSecretsOfAKnownShapeAreFoundHoweverTheyAreWrapped(t *testing.T) {
	t.Parallel()
	for name, s := range secrets {
		for how, wrap := range wrappings {
			whole := wrap(s)
			got := redact.Text(whole)
			require.NotContains(t, got, s, "%s %s", name, how)
			require.Contains(t, got, redact.Redacted, "%s, %s: %s", name, how, whole)
			require.NotContains(t, got, wrap(s[len(s)/2:]), "%s, %s", name, how)
			require.Equal(t, got, redact.Text(got), "%s, %s: twice is once", name, how)
			doc := must(json.Marshal(map[string]any{"a": []string{whole}, whole: 1}))
			out := redact.JSON(doc)
			require.True(t, json.Valid(out))
			require.NotContains(t, string(out), s, "%s %s", name, how)
			require.NotContains(t, string(out), wrap(s[len(s)/2:]), "%s, %s", name, how)
		}
	}
}

func TestWhatStandsBesideItsName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"password=hunter2 and on":                    "password=[REDACTED] and on",
		"DB_PASSWORD='two words'":                    "DB_PASSWORD='[REDACTED]'",
		`{"apiKey": "abc"`:                           `{"apiKey": "[REDACTED]"`,
		"https://h/x?access_token=abcdef&page=2":     "https://h/x?access_token=[REDACTED]&page=2",
		"Cookie: a=1; b=two\nHost: h":                "Cookie: [REDACTED]\nHost: h",
		"set-cookie: sid=abc; HttpOnly":              "set-cookie: [REDACTED]",
		"Authorization: Bearer opensesame1":          "Authorization: [REDACTED]",
		"sent Bearer abcdef0123456789 to it":         "sent Bearer [REDACTED] to it",
		"BEARER  aBcDeFgHiJkLmNoP":                   "BEARER  [REDACTED]",
		"Basic dXNlcjpwYXNzd29yZA==":                 "Basic [REDACTED]",
		"postgres://app:s3cret@db:5432/x":            "postgres://[REDACTED]@db:5432/x",
		"https://u:p@ss@h.example/":                  "https://[REDACTED]@h.example/",
		"the preimage is " + preimage + ".":          "the preimage is [REDACTED].",
		"payment_preimage=" + preimage:               "payment_preimage=[REDACTED]",
		"client-secret: s3cr3t-value":                "client-secret: [REDACTED]",
		"secret: abcdefghijklmnopq":                  "secret: [REDACTED]",
		`curl -H "X-Api-Key: 12ab" h`:                `curl -H "X-Api-Key: [REDACTED]" h`,
		"macaroon=" + "0a0b0c0d":                     "macaroon=[REDACTED]",
		"auth_key=aB3dE5gH7jK9mN1p":                  "auth_key=[REDACTED]",
		"-----BEGIN PRIVATE KEY-----\nMIIabc is cut": "[REDACTED]",
	} {
		require.Equal(t, want, redact.Text(in))
		require.Equal(t, want, redact.Text(want))
	}
}

func TestOrdinaryTextStaysAsItIs(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "a", "task-list and disk-usage, ask-someone-else", "the task-123456789 risk-assessment-of-2026", "scikit: sk-learn-style-estimators-and-transformers",
		"bearer of bad news, bearer instruments", "Basic training starts; basic understanding", "token: the unit of text", "secret: nobody knows", "Authorization: required",
		"password: see below", "re_evaluate_everything_again_and_again", "if (password == other) { token := next() }", "tokens=512 max_tokens: 4096 token: 5", "key=value sort_key=a1",
		"https://example.com:8080/path?page_token=abc123def456&next_page_token=AbCdEf0123456789", "http://[::1]:80/", "git@github.com:owner/name.git", "ssh://git@github.com/owner/name",
		"mail a@example.com or call +49 30 1234567", "AKIA is a prefix", "eyJ is how a JWT begins", "lnbc20m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqs",
		"preimage of a hash; payment_hash " + preimage, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
		"idempotency_key=AbCdEf0123456789AbCd public_key=AbCdEf0123456789AbCd", "key=customer-preferences-v2", "100% sure, 50%25 off", `C:\new\table "x"`, "日本語のテキスト 🙂 zażółć",
		base64.StdEncoding.EncodeToString([]byte("an ordinary sentence, in base64, is kept")), "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ",
	} {
		require.Equal(t, s, redact.Text(s))
	}
}

// What records are made of is never touched: ten thousand of each.
func TestIdsHashesMomentsAndAmountsStayAsTheyAre(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int, alphabet string) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = alphabet[r.IntN(len(alphabet))]
		}
		return string(b)
	}
	const base62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	const hexes, bech32 = "0123456789abcdef", "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	moment := func() time.Time { return time.UnixMicro(r.Int64N(4e15)).UTC() }
	kinds := map[string]func() string{
		"hash": func() string { return "sha256:" + random(64, hexes) }, "hex": func() string { return random(64, hexes) }, "hex20": func() string { return random(20, hexes) },
		"uuid": func() string { return must(uuid.NewRandomFromReader(rngReader{r})).String() },
		"run":  func() string { return "run_" + random(24, hexes) }, "call": func() string { return "call_" + random(24, hexes) }, "request": func() string { return "req_" + random(22, base62) },
		"trace": func() string { return "00-" + random(32, hexes) + "-" + random(16, hexes) + "-01" }, "ulid": func() string { return random(26, "0123456789ABCDEFGHJKMNPQRSTVWXYZ") },
		"moment": func() string { return moment().Format(time.RFC3339Nano) }, "date": func() string { return moment().Format(time.DateOnly) }, "local": func() string { return moment().Format("2006-01-02 15:04:05 -0700") },
		"millis": func() string { return fmt.Sprint(moment().UnixMilli()) }, "amount": func() string { return fmt.Sprint(r.Int64N(21e14)) }, "decimal": func() string { return fmt.Sprintf("%.8f", r.Float64()*1e6) },
		"bolt11": func() string {
			return fmt.Sprintf("lnbc%du1p%spp5%s", r.IntN(1e6), random(7, bech32), random(250, bech32))
		},
		"npub": func() string { return "npub1" + random(58, bech32) }, "base62": func() string { return random(21, base62) }, "version": func() string { return fmt.Sprintf("v%d.%d.%d", r.IntN(99), r.IntN(99), r.IntN(99)) },
	}
	for name, kind := range kinds {
		for range 10_000 {
			v := kind()
			for _, text := range []string{v, "at " + v + ", then", `{"run_id":"` + v + `","payment_hash":"` + v + `"}`} {
				require.Equal(t, text, redact.Text(text), name)
			}
			doc := json.RawMessage(`{"id" : "` + v + `", "at":["` + v + `"],"amount_sats":123456789012}`)
			require.Equal(t, string(doc), string(redact.JSON(doc)), name)
		}
	}
}

type rngReader struct{ r *rand.Rand }

func (r rngReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r.r.Uint32())
	}
	return len(b), nil
}

func TestMembersThatAreNamedAsSecrets(t *testing.T) {
	t.Parallel()
	in := `{"accessToken":"a","Refresh-Token":"b","api_key":"c","XApiKey":"d","password":123456,"nested":{"Cookie":["e","f"]},"secret":{"x":"g","n":7,"ok":true},
 "token":5,"max_tokens":10,"page_token":"h","publicKey":"i","preimage":"j","credentials":null,"list":[{"client_secret":"k"},"l"],"stripeApiKey":"m","adminMacaroon":"n",
 "inner":"{\"password\":\"o\",\"z\":\"{\\\"token\\\":\\\"p\\\"}\"}","a":"kept","pаssword":"q"}`
	want := `{"accessToken":"[REDACTED]","Refresh-Token":"[REDACTED]","api_key":"[REDACTED]","XApiKey":"[REDACTED]","password":"[REDACTED]","nested":{"Cookie":["[REDACTED]","[REDACTED]"]},"secret":{"x":"[REDACTED]","n":"[REDACTED]","ok":true},
 "token":5,"max_tokens":10,"page_token":"h","publicKey":"i","preimage":"[REDACTED]","credentials":null,"list":[{"client_secret":"[REDACTED]"},"l"],"stripeApiKey":"[REDACTED]","adminMacaroon":"[REDACTED]",
 "inner":"{\"password\":\"[REDACTED]\",\"z\":\"{\\\"token\\\":\\\"[REDACTED]\\\"}\"}","a":"kept","pаssword":"[REDACTED]"}`
	require.Equal(t, want, string(redact.JSON([]byte(in))))
	require.Equal(t, want, string(redact.JSON([]byte(want))))
	require.Equal(t, `{"a":"[REDACTED]","a":"x"}`, string(redact.JSON([]byte(`{"a":"sk-abcdefghij0123456789","a":"x"}`))), "a repeated member hides nothing")
	require.Equal(t, `"password=[REDACTED]"`, string(redact.JSON([]byte(`password=abc1`))), "what is no JSON is text")
	require.Equal(t, ``, string(redact.JSON(nil)))

	m := map[string]any{"token": "a", "n": json.Number("5"), "list": []string{"Bearer abcdef0123456789"}, "deep": map[string]string{"password": "b"}, "f": func() {}, "any": []any{nil, true, 1.5}}
	out := redact.Map(m)
	require.Equal(t, map[string]any{"token": redact.Redacted, "n": json.Number("5"), "list": []any{"Bearer " + redact.Redacted}, "deep": map[string]any{"password": redact.Redacted}, "f": redact.Redacted, "any": []any{nil, true, 1.5}}, out)
	require.Equal(t, "a", m["token"])
	require.Nil(t, redact.Map(nil))
}

func TestWhatTheProcessKnowsIsFoundInEveryForm(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.StringMatching(`[a-zA-Z0-9 !"/+%äß-]{6}[a-z]{6,20}`).Draw(t, "secret")
		secret = "x" + secret
		var k redact.Known
		require.True(t, k.Add(secret))
		before, after := rapid.StringMatching(`[a-zA-Z ]{0,9}`).Draw(t, "before"), rapid.StringMatching(`[a-zA-Z ]{0,9}`).Draw(t, "after")
		for how, wrapped := range map[string]string{
			"plain": secret, "percent": url.QueryEscape(secret), "path": url.PathEscape(secret), "json": string(must(json.Marshal(secret))), "hex": hex.EncodeToString([]byte(secret)),
			"base64": base64.StdEncoding.EncodeToString([]byte(before + secret + after)), "escapes": percent(secret),
		} {
			got := k.Text(before + wrapped + after)
			require.Contains(t, got, redact.Redacted, "%s: %s", how, wrapped)
			require.NotContains(t, got, secret)
			require.Equal(t, got, k.Text(got))
		}
		require.NotContains(t, string(k.JSON(must(json.Marshal(map[string]any{"a": before + secret})))), secret[1:])
	})
	var k redact.Known
	require.False(t, k.Add("short"))
	require.Equal(t, "short", k.Text("short"))
	require.True(t, redact.Know("fetched-by-this-process"))
	require.Equal(t, "it is [REDACTED]!", redact.Text("it is fetched-by-this-process!"))
}

// A secret does not pass in parts, whatever the pieces.
func TestAFilterFindsWhatIsSplitOverPieces(t *testing.T) {
	t.Parallel()
	var k redact.Known
	k.Add("correct horse battery")
	texts := []string{
		"Hello, this is text. 日本語 too.\nAnd a list:\n- one\n- two", "use %s now, please", "a: %s", "Bearer %s", "line\npassword=%s\nnext", "Cookie: a=%s; b=2\nrest", "x %s", "say %s twice: %s",
		"postgres://u:%s@h/x and more",
	}
	var all []string
	for _, s := range secrets {
		all = append(all, s)
	}
	for _, wrap := range wrappings {
		all = append(all, wrap(secrets["github"]), wrap(secrets["jwt"]))
	}
	all = append(all, "correct horse battery")
	rapid.Check(t, func(t *rapid.T) {
		text, secret := rapid.SampledFrom(texts).Draw(t, "text"), rapid.SampledFrom(all).Draw(t, "secret")
		whole := strings.ReplaceAll(text, "%s", secret)
		f := redact.Filter{Known: &k}
		var shown strings.Builder
		for rest := whole; rest != ""; {
			n := rapid.IntRange(1, min(len(rest), 12)).Draw(t, "n")
			shown.WriteString(f.Write(rest[:n]))
			rest = rest[n:]
		}
		shown.WriteString(f.Flush())
		if secret == pem { // it is in many words, which other rules may join
			require.NotContains(t, shown.String(), "MHcC")
			require.NotContains(t, shown.String(), "tF1aY")
			return
		}
		// Six characters of a secret may have been shown as a word.
		want := strings.ReplaceAll(regexp.QuoteMeta(k.Text(whole)), regexp.QuoteMeta(redact.Redacted), `[\p{L}\p{M}\p{N}]{0,6}:?`+regexp.QuoteMeta(redact.Redacted))
		require.Regexp(t, `\A`+want+`\z`, shown.String())
	})
}

func TestAFilterShowsWordsSoon(t *testing.T) {
	t.Parallel()
	var f redact.Filter
	require.Equal(t, "Hel", f.Write("Hel"))
	require.Equal(t, "lo", f.Write("lo"))
	require.Equal(t, " ", f.Write(" "))
	require.Equal(t, "dear ", f.Write("dear "))
	require.Equal(t, "Jürgen,", f.Write("Jürgen,"))
	shown := "Hello dear Jürgen," + f.Write(" there, how ") + f.Write("are you ")
	require.Contains(t, shown, "there, how")
	require.Equal(t, "Hello dear Jürgen, there, how are you ", shown+f.Flush())
}

func TestWhatIsTooLargeIsTakenOutWhole(t *testing.T) {
	t.Parallel()
	require.Equal(t, redact.Redacted, redact.Text(strings.Repeat("a", redact.MaxBytes+1)))
	require.Equal(t, `"[REDACTED]"`, string(redact.JSON([]byte(strings.Repeat("1", redact.MaxBytes+1)))))
}

// hostile texts make a matcher that looks back and forth slow.
var hostile = map[string]string{
	"keys": "token:", "equals": "a=", "jwt": "eyJhbGciO.", "jwt2": "eyJ.", "sk": "sk-", "sk2": " sk-a", "url": "://a:", "url2": "a://", "bearer": "bearer ", "basic": "basic a", "preimage": "preimage",
	"preimage hex": "preimage a ", "pem": "-----BEGIN PRIVATE KEY-----", "pem2": "-----BEGIN ", "cookie": "cookie:", "cookie2": "cookie: a", "quotes": `password="`, "escapes": `\"`, "percent": "%25", "percent2": "%", "base64": "QUJD", "zero": "\u200b",
	"open": "[", "braces": `{"a":`, "mac": "AgEDbG5k", "b": "b", "colon": "token: (", "uni": `\u0073`, "nested": `"\"`,
}

// cpu is what this process has had of the processors: other processes do not
// count, and no test runs beside those that are not parallel.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func TestTimeIsLinear(t *testing.T) {
	for name, unit := range hostile {
		took := func(n int) time.Duration {
			s, best := strings.Repeat(unit, n/len(unit)), time.Hour
			for range 3 {
				start := cpu(t)
				redact.Text(s)
				redact.JSON([]byte(s))
				best = min(best, cpu(t)-start)
			}
			return best
		}
		small, large := took(32<<10), took(256<<10)
		require.Less(t, large, 24*small+20*time.Millisecond, "%s: 32 KiB took %s, 256 KiB %s", name, small, large)
	}
}

func TestAFilterTakesLinearTime(t *testing.T) {
	for name, unit := range hostile {
		took := func(n int) time.Duration {
			best := time.Hour
			for range 2 {
				var f redact.Filter
				start := cpu(t)
				for range n / len(unit) {
					f.Write(unit)
				}
				f.Flush()
				best = min(best, cpu(t)-start)
			}
			return best
		}
		small, large := took(48<<10), took(192<<10)
		require.Less(t, large, 12*small+50*time.Millisecond, "%s: 48 KiB took %s, 192 KiB %s", name, small, large)
	}
}

func FuzzRedact(f *testing.F) {
	for _, s := range secrets {
		f.Add(s)
	}
	for _, s := range hostile {
		f.Add(strings.Repeat(s, 5))
	}
	f.Add(`{"password":"x","a":{"token":[1,"{\"secret\":2}"]}}`)
	f.Fuzz(func(t *testing.T, s string) {
		once := redact.Text(s)
		require.Equal(t, once, redact.Text(once))
		doc := redact.JSON([]byte(s))
		if len(strings.TrimSpace(s)) > 0 {
			require.True(t, json.Valid(doc), "%q", doc)
		}
		require.Equal(t, string(doc), string(redact.JSON(doc)))
		var filter redact.Filter
		var shown string
		for i := range len(s) {
			shown += filter.Write(s[i : i+1])
		}
		shown += filter.Flush()
		if once == s {
			require.Equal(t, s, shown)
		}
	})
}

func BenchmarkPlainText(b *testing.B) {
	s := strings.Repeat("The quick brown fox jumps over the lazy dog: 42 times, on 2026-02-20. ", 15)
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		redact.Text(s)
	}
}

func BenchmarkAFilter(b *testing.B) {
	s := strings.Repeat("The quick brown fox jumps over the lazy dog: 42 times, on 2026-02-20. ", 15)
	var words []string
	for w := range strings.FieldsSeq(s) {
		words = append(words, w+" ")
	}
	redact.Know("something-that-the-process-knows")
	for b.Loop() {
		var f redact.Filter
		for _, w := range words {
			f.Write(w)
		}
		f.Flush()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(words)), "ns/piece")
}

func BenchmarkPlainJSON(b *testing.B) {
	doc := must(json.Marshal(map[string]any{"run_id": "run_0123456789abcdef", "text": strings.Repeat("plain words. ", 60), "n": 5, "hash": "sha256:" + preimage}))
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		redact.JSON(doc)
	}
}
