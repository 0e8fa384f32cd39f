package contracttest_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
)

// cancel is a request that would change something if it were let in.
func (s *siege) cancel() contracttest.Request {
	return contracttest.Request{Method: "POST", Target: "/internal/v1/runs/" + s.live + "/cancel", Body: `{"reason":"attack"}`}
}

// right is the token that would let a request in.
func (s *siege) right(t *testing.T, q contracttest.Request) string {
	t.Helper()
	token := s.Headers(t, q).Get(auth.SignatureHeader)
	s.tokens = append(s.tokens, token)
	return token
}

func TestA01NoOrAmbiguousSignature(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A1", contracttest.Options{})
	q := s.cancel()
	token := s.right(t, q)
	for name, c := range map[string]struct {
		token  string
		header []string
		reason auth.Reason
	}{
		"no signature":          {contracttest.NoToken, nil, auth.MissingToken},
		"an empty signature":    {contracttest.NoToken, []string{""}, auth.MissingToken},
		"another scheme":        {"Bearer " + token, nil, auth.MalformedToken},
		"another version":       {"v2" + token[2:], nil, auth.MalformedToken},
		"only the claims":       {token[:strings.LastIndexByte(token, '.')], nil, auth.MalformedToken},
		"two signature headers": {contracttest.NoToken, []string{token, token}, auth.MalformedToken},
		"two in one header":     {token + "," + token, nil, auth.MalformedToken},
	} {
		q := s.cancel()
		q.Token = c.token
		if c.header != nil {
			q.Header = http.Header{auth.SignatureHeader: c.header}
		}
		s.refuse(t, name, q, "unauthorized", string(c.reason))
	}
}

func TestA02SignatureOfAnotherRequest(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A2", contracttest.Options{})
	for name, c := range map[string]struct {
		claims func(*auth.Claims)
		header http.Header
		code   string
		reason auth.Reason
	}{
		"another method":                {func(c *auth.Claims) { c.Method = "PUT" }, nil, "unauthorized", auth.RequestMismatch},
		"another path":                  {func(c *auth.Claims) { c.Target = "/internal/v1/runs/run-ended/cancel" }, nil, "unauthorized", auth.RequestMismatch},
		"another query":                 {func(c *auth.Claims) { c.Target += "?a=1" }, nil, "unauthorized", auth.RequestMismatch},
		"another body":                  {func(c *auth.Claims) { c.BodySHA256 = auth.BodyHash(nil) }, nil, "unauthorized", auth.RequestMismatch},
		"another deployment":            {func(c *auth.Claims) { c.Audience = "runtime.elsewhere" }, nil, "unauthorized", auth.AudienceMismatch},
		"another run":                   {func(c *auth.Claims) { c.RunID = "run-ended" }, nil, "forbidden", auth.ClaimMismatch},
		"another user":                  {nil, http.Header{"X-Oa-User-Id": {"2"}}, "forbidden", auth.ClaimMismatch},
		"a guest added":                 {nil, http.Header{"X-Oa-Guest-Scope": {"guest-1"}}, "forbidden", auth.ClaimMismatch},
		"less than the operation needs": {func(c *auth.Claims) { c.Scope = auth.Read }, nil, "forbidden", auth.ScopeInsufficient},
	} {
		q := s.cancel()
		q.Claims, q.Header = c.claims, c.header
		s.refuse(t, name, q, c.code, string(c.reason))
	}
	start := contracttest.Request{Method: "POST", Target: "/internal/v1/runs", Body: `{"runId":"r","threadId":"t","userId":1,"authenticatedSession":true}`}
	start.Claims = func(c *auth.Claims) { c.RunID = "r2" }
	s.refuse(t, "startRun of another run", start, "forbidden", string(auth.ClaimMismatch))
	start.Claims = func(c *auth.Claims) { c.ThreadID = "t2" }
	s.refuse(t, "startRun in another thread", start, "forbidden", string(auth.ClaimMismatch))
}

func TestA03BodyChangedAfterSigning(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A3", contracttest.Options{})
	q := s.cancel()
	token := s.right(t, q)
	for name, body := range map[string]string{
		"another value":         `{"reason":"attack!"}`,
		"same JSON, more space": `{"reason": "attack"}`,
		"same JSON, escaped":    `{"reason":"\u0061ttack"}`,
		"same JSON, new line":   "{\"reason\":\"attack\"}\n",
		"no body":               ``,
	} {
		q := s.cancel()
		q.Body, q.Token = body, token
		s.refuse(t, name, q, "unauthorized", string(auth.RequestMismatch))
	}
}

func TestA04TokenTimes(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A4", contracttest.Options{})
	now := time.Now().Unix()
	for name, c := range map[string]struct {
		iat, exp string
		reason   auth.Reason
	}{
		"too old":             {fmt.Sprint(now - 120), fmt.Sprint(now - 60), auth.TokenExpired},
		"from the future":     {fmt.Sprint(now + 90), fmt.Sprint(now + 120), auth.TokenNotYetValid},
		"for ten years":       {fmt.Sprint(now), fmt.Sprint(now + 315_360_000), auth.TokenLifetime},
		"ends as it begins":   {fmt.Sprint(now), fmt.Sprint(now), auth.InvalidClaims},
		"text":                {`"now"`, fmt.Sprint(now + 60), auth.InvalidClaims},
		"a fraction":          {fmt.Sprint(now), fmt.Sprintf("%d.5", now+60), auth.InvalidClaims},
		"null":                {"null", fmt.Sprint(now + 60), auth.InvalidClaims},
		"past int64":          {fmt.Sprint(now), "9223372036854775808", auth.MalformedToken},
		"past every number":   {fmt.Sprint(now), "1e400", auth.MalformedToken},
		"below zero":          {"-1", fmt.Sprint(now + 60), auth.InvalidClaims},
		"sum past int64":      {"-9223372036854775807", "9007199254740991", auth.MalformedToken},
		"not there":           {"", fmt.Sprint(now + 60), auth.InvalidClaims},
		"an array":            {"[1]", fmt.Sprint(now + 60), auth.InvalidClaims},
		"a very large number": {fmt.Sprint(now), "1e300", auth.InvalidClaims},
	} {
		q := s.cancel()
		q.Token = s.tokenOf(t, q, map[string]string{"iat": c.iat, "exp": c.exp})
		s.refuse(t, name, q, "unauthorized", string(c.reason))
	}
}

// tokenOf signs a request's claims with some of them changed, as JSON texts; an
// empty text leaves the claim out.
func (s *siege) tokenOf(t *testing.T, q contracttest.Request, change map[string]string) string {
	t.Helper()
	now := time.Now().Unix()
	user := int64(1)
	body, _ := q.Body.(string)
	raw, err := json.Marshal(auth.Claims{
		IssuedAt: now, ExpiresAt: now + 60, Nonce: rand.Text(), KeyID: "k1", Audience: contracttest.Audience, Scope: auth.Service,
		Actor: "attacker", Method: q.Method, Target: q.Target, BodySHA256: auth.BodyHash([]byte(body)), RunID: s.live, UserID: &user,
	})
	require.NoError(t, err)
	var claims map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(raw, &claims))
	for name, text := range change {
		claims[name] = json.RawMessage(text)
		if text == "" {
			delete(claims, name)
		}
	}
	var b bytes.Buffer
	for i, name := range slices.Sorted(maps.Keys(claims)) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", name, claims[name])
	}
	token := contracttest.SignText(contracttest.Secret, "{"+b.String()+"}")
	s.tokens = append(s.tokens, token)
	return token
}

func TestA05ReplayInAnyProcess(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A5", contracttest.Options{})
	q := contracttest.Request{Target: "/internal/v1/runs/" + s.live}
	q.Token = s.right(t, q)
	require.Equal(t, http.StatusOK, s.Do(t, q).Status, "the token is right")
	s.refuse(t, "again in the same process", q, "unauthorized", string(auth.NonceReplayed))
	for _, name := range []string{"in another process", "after a restart"} {
		other := *s
		other.world = &world{Rig: contracttest.New(t, s.Pool, contracttest.Options{}), t: t}
		other.refuse(t, name, q, "unauthorized", string(auth.NonceReplayed))
	}
	changed := q
	changed.Header = http.Header{"X-Request-Id": {"another"}}
	s.refuse(t, "with other headers", changed, "unauthorized", string(auth.NonceReplayed))
}

func TestA06NonceFlood(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A6", contracttest.Options{})
	q := contracttest.Request{Target: "/internal/v1/runs/" + s.live}
	q.Token = s.right(t, q)
	require.Equal(t, http.StatusOK, s.Do(t, q).Status)
	_, err := s.Pool.Exec(t.Context(), `
		INSERT INTO auth_nonces (nonce_hash, expires_at)
		SELECT sha256(convert_to(n::text, 'UTF8')), clock_timestamp() + interval '5 minutes' FROM generate_series(1, 100000) n`)
	require.NoError(t, err)
	_, err = auth.PostgresNonces{Pool: s.Pool}.Sweep(t.Context())
	require.NoError(t, err)
	s.refuse(t, "replay after 100,000 other nonces and a sweep", q, "unauthorized", string(auth.NonceReplayed))
}

func TestA07TimingOfTheComparison(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A7", contracttest.Options{})
	q := s.cancel()
	q.Header = http.Header{"X-Request-Id": {"same"}, "Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	token := s.right(t, q)
	start := strings.LastIndexByte(token, '.') + 1
	var first []byte
	for i := start; i < len(token)-1; i++ {
		q.Token = token[:i] + flip(token[i]) + token[i+1:]
		a := s.Do(t, q)
		require.Equal(t, string(auth.InvalidSignature), a.Reason())
		if first == nil {
			first = a.Body
		}
		require.Equal(t, string(first), string(a.Body), "the answer tells which character is wrong")
	}
	s.note(t, "each character of the signature changed in turn", "401 unauthorized invalid_signature, always the same bytes")

	const tries, bound = 50_000, time.Microsecond
	early, late := s.timings(t, token[:start]+flip(token[start])+token[start+1:], token[:len(token)-2]+flip(token[len(token)-2])+token[len(token)-1:], tries)
	require.InDelta(t, float64(early), float64(late), float64(bound), "the comparison takes %s when the first character is wrong, %s when the last is", early, late)
	s.note(t, fmt.Sprintf("%d tries with the first and with the last character wrong", 2*tries), fmt.Sprintf("mean times differ by less than %s", bound))
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

// timings are the mean times of two refusals, taken in turn, without the
// slowest fifth, which tells of the machine and not of the comparison.
func (s *siege) timings(t *testing.T, a, b string, tries int) (time.Duration, time.Duration) {
	t.Helper()
	v := &auth.Verifier{Keys: s.Keys, Audience: contracttest.Audience, Nonces: auth.PostgresNonces{Pool: s.Pool}}
	times := [2][]time.Duration{}
	requests := [2]auth.Request{}
	for i, token := range []string{a, b} {
		requests[i] = auth.Request{Method: "POST", Target: "/", Header: http.Header{}}
		requests[i].Header.Set(auth.SignatureHeader, token)
	}
	for range tries {
		for i, r := range requests {
			begun := time.Now()
			_, err := v.Verify(t.Context(), r)
			times[i] = append(times[i], time.Since(begun))
			if err == nil {
				t.Fatal("a wrong signature is let in")
			}
		}
	}
	var means [2]time.Duration
	for i := range times {
		slices.Sort(times[i])
		kept := times[i][:tries*4/5]
		for _, d := range kept {
			means[i] += d
		}
		means[i] /= time.Duration(len(kept))
	}
	return means[0], means[1]
}

func TestA08KeyIDsAndRotation(t *testing.T) {
	t.Parallel()
	const next = "contract-test-secret-of-the-next-key"
	s := besiege(t, "A8", contracttest.Options{Keys: "k2:" + next + ",k1:" + contracttest.Secret})
	for name, kid := range map[string]string{
		"retired or unknown key": `"k0"`, "the other key's id": `"k2"`, "key id with a path": `"../../k1"`, "key id with SQL": `"k1' OR '1'='1"`,
		"key id with NUL": `"k1\u0000"`, "no key id": ``, "key id null": `null`, "key id as number": `1`,
	} {
		q := s.cancel()
		q.Token = s.tokenOf(t, q, map[string]string{"kid": kid})
		s.refuse(t, name, q, "unauthorized", string(auth.InvalidSignature))
	}
	read := contracttest.Request{Method: "GET", Target: "/internal/v1/runs/" + s.live}
	for kid, secret := range map[string]string{"k1": contracttest.Secret, "k2": next} {
		keys, err := auth.ParseKeyring(kid + ":" + secret)
		require.NoError(t, err)
		rig := *s.Rig
		rig.Keys = keys
		require.Equal(t, http.StatusOK, rig.Do(t, read).Status, "while keys overlap both are taken")
	}
	retired := *s
	retired.world = &world{Rig: contracttest.New(t, s.Pool, contracttest.Options{Keys: "k2:" + next}), t: t}
	retired.refuse(t, "a key that was dropped", read, "unauthorized", string(auth.InvalidSignature))
}
