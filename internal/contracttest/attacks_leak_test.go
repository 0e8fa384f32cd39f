package contracttest_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// leaky is a tool that tells a secret in every way that a tool has.
type leaky struct{ secret string }

func (leaky) Spec() tool.Spec {
	return tool.Spec{Name: "leaky.tool", Description: "Tells.", Kind: tool.Runtime, Provider: "leaky", Boundary: tool.SafeRetry, Timeout: time.Second,
		Input: json.RawMessage(`{"type":"object"}`)}
}

func (l leaky) Run(ctx context.Context, c tool.Call, progress func(json.RawMessage) error) (tool.Result, error) {
	text := "It is " + l.secret + "."
	quoted, err := json.Marshal(map[string]string{"note": text})
	if err != nil {
		return tool.Result{}, err
	}
	var in struct{ How string }
	if err := json.Unmarshal(c.Input, &in); err != nil {
		return tool.Result{}, err
	}
	switch in.How {
	case "panic":
		panic(text)
	case "error":
		return tool.Result{}, errors.New(text)
	case "tool error":
		return tool.Result{}, &tool.Error{Class: "failed", Message: text}
	case "progress":
		return tool.Result{Output: json.RawMessage(`1`)}, progress(quoted)
	case "correlation":
		return tool.Result{Output: json.RawMessage(`1`), CorrelationID: l.secret}, nil
	case "not JSON":
		return tool.Result{Output: json.RawMessage(text)}, nil
	case "late":
		<-ctx.Done()
		return tool.Result{}, errors.New(text)
	default:
		return tool.Result{Output: quoted}, nil
	}
}

func TestA36SecretsThatToolsTell(t *testing.T) {
	t.Parallel()
	const shaped, known = "ghp_Zm9yYXR0YWNrdGVzdHNvbmx5MDEyMzQ1Njc4", "neither-shape-nor-name-70311"
	require.True(t, redact.Know(known))
	for name, secret := range map[string]string{"of a known shape": shaped, "that the process knows": known} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tellAll(t, secret)
		})
	}
}

func tellAll(t *testing.T, secret string) {
	w := openWorkshop(t, "A36", workshopOptions{tools: []tool.Tool{leaky{secret}}})
	for _, how := range []string{"panic", "error", "tool error", "progress", "correlation", "not JSON", "late", "output"} {
		r := w.begin(t, anything, call("leaky.tool", map[string]any{"how": how, "note": secret, "password": "p-" + secret}))
		got := w.outcomes(t, r)
		require.Len(t, got, 1)
		told := w.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + r.RunID + "/stream?parts=ai7"})
		require.NotContains(t, string(told.Body), secret, how)
		w.note(t, "a secret in a tool's "+how, got[0]+", and no secret")
	}
	require.NotContains(t, w.everything(t), secret)
	require.NotContains(t, w.Log.String(), secret)
	require.NotContains(t, w.model.shown(), secret)
}

func TestA37WaysAroundRedaction(t *testing.T) {
	t.Parallel()
	const secret = "ghp_Zm9yYnlwYXNzdGVzdHNvbmx5MDEyMzQ1Njc4"
	const known = "registered-secret-40917-of-the-process"
	require.True(t, redact.Know(known))
	full := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r > ' ' && r < 0x7f {
				return r - 0x21 + 0xFF01
			}
			return r
		}, s)
	}
	escaped := func(s string) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			fmt.Fprintf(&b, `\u%04x`, c)
		}
		return b.String()
	}
	percent := func(s string) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			fmt.Fprintf(&b, "%%%02X", c)
		}
		return b.String()
	}
	base := base64.StdEncoding.EncodeToString
	ways := map[string]string{
		"as it is": secret, "base64": base([]byte("token " + secret)), "base64 twice": base([]byte(base([]byte(secret)))), "percent": percent(secret), "percent twice": url.QueryEscape(percent(secret)),
		"JSON escapes": escaped(secret), "full-width": full(secret), "invisible letters": strings.Join(strings.Split(secret, ""), "\u200b"), "soft hyphens": secret[:9] + "\u00ad" + secret[9:],
		"JSON in a text": `{"a":"` + secret + `"}`, "JSON in JSON": `"{\"a\":\"{\\\"token\\\":\\\"` + secret + `\\\"}\"}"`, "a query": "https://example.com/?x=" + secret, "a header": "Authorization: token " + secret,
		"known, base64": base([]byte("x" + known + "y")), "known, hex": hex.EncodeToString([]byte(known)), "known, percent": percent(known), "known, as it is": known,
	}
	var w *workshop
	var page string
	w = openWorkshop(t, "A37", workshopOptions{web: func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(rw, "Take "+page+" with you.")
	}})
	for way, text := range ways {
		page = text
		// Once by a user, once by a page, and the model repeats both word by word.
		require.Len(t, w.outcomes(t, w.begin(t, nil, "See "+text+" here.\n"+call("http.fetch", map[string]any{"url": w.web.URL}))), 1)
		all := w.everything(t) + w.model.shown() + w.Log.String()
		for _, form := range []string{text, secret, known, strings.Trim(string(inJSON(t, text)), `"`)} {
			require.NotContains(t, all, form, way)
		}
		w.note(t, "a secret by way of "+way, "[REDACTED] in what is stored, logged and shown")
	}
	require.Contains(t, w.everything(t), "[REDACTED]")

	// Split over deltas: a model that spells it out.
	for _, size := range []int{1, 2, 3, 7, 20} {
		for name, s := range map[string]string{"shaped": secret, "known": known} {
			w.model.spell(pieces("It is "+s+", you see.", size))
			r := w.begin(t, nil, "Say it.")
			w.finish(t, r)
			told := w.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + r.RunID}).Body
			require.NotContains(t, string(told), s[6:], "%s by %d", name, size)
			require.Contains(t, string(told), "you see.")
			require.NotContains(t, w.everything(t), s[6:])
			w.note(t, fmt.Sprintf("a %s secret split over deltas of %d", name, size), "[REDACTED]")
		}
	}
}

func pieces(s string, size int) (out []string) {
	for len(s) > 0 {
		n := min(size, len(s))
		out, s = append(out, s[:n]), s[n:]
	}
	return out
}

func inJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return b
}

func TestA38LogLinesAndLabels(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, "A38", workshopOptions{guard: egress.GuardConfig{Resolver: newNames(t, nil)}})
	evil := []string{
		"x\n{\"level\":\"ERROR\",\"msg\":\"forged\"}", "x\r\nforged", "\x1b[2J\x1b[31mforged", `","msg":"forged","x":"`, "x\u2028forged", "x\x00forged", "\u202Eforged", strings.Repeat("forged ", 100),
	}
	count := func() int {
		series, err := testutil.GatherAndCount(w.Process.Metrics.Registry)
		require.NoError(t, err)
		return series
	}
	round := func(n int) {
		for i, text := range evil {
			text = fmt.Sprintf("%s %d", text, n)
			for _, q := range []contracttest.Request{
				{Target: "/internal/v1/runs/" + url.PathEscape(text)}, {Target: "/internal/v1/" + url.PathEscape(text)}, {Method: "POST", Target: "/internal/v1/runs/run-1/cancel", Body: map[string]any{"reason": text}},
				{Target: "/internal/v1/runs", Header: http.Header{"X-Request-Id": {url.PathEscape(text)}, "Tracestate": {"a=" + url.PathEscape(text)}}},
				{Method: "POST", Target: "/internal/v1/tools/execute", Body: map[string]any{"runId": "run-1", "toolCallId": fmt.Sprint("c", n, i), "tool": fmt.Sprintf("forged.tool%d.n%d", n, i), "input": map[string]any{text: text}}},
			} {
				w.Do(t, q)
			}
			r := w.begin(t, anything, text+call(fmt.Sprintf("forged%d.%d", n, i), map[string]any{"x": text})+call("forged\n"+fmt.Sprint(n, i), map[string]any{})+
				call("http.fetch", map[string]any{"url": fmt.Sprintf("http://h%d-%d.forged.invalid./%s", n, i, url.PathEscape(text))}))
			require.NotEmpty(t, w.outcomes(t, r))
		}
	}
	round(1)
	before := count()
	for n := range 4 {
		round(2 + n)
	}
	require.Equal(t, before, count(), "series grow with the traffic")
	w.note(t, "names of tools, hosts, runs and paths by the hundred", "no new series")

	lines := strings.Split(strings.TrimSpace(w.Log.String()), "\n")
	require.Greater(t, len(lines), 100)
	for _, line := range lines {
		var l struct{ Msg, Level string }
		require.NoError(t, json.Unmarshal([]byte(line), &l), line)
		require.NotEqual(t, "forged", l.Msg)
		require.False(t, strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }), "%q", line)
	}
	w.note(t, "line ends, escapes and JSON in all that is logged", "each line is one JSON object of ours")
}
