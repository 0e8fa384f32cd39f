package l402

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/wallet/bolt11"
)

// However challenges are written one after another, each comes out as it went in.
func TestChallengesComeOutAsTheyWentIn(t *testing.T) {
	t.Parallel()
	value := rapid.StringMatching(`[ -~]{0,30}`)
	rapid.Check(t, func(t *rapid.T) {
		type want struct {
			scheme string
			params map[string]string
		}
		var all []want
		var text strings.Builder
		for range rapid.IntRange(1, 4).Draw(t, "challenges") {
			w := want{rapid.StringMatching(`[A-Za-z][A-Za-z0-9-]{0,8}`).Draw(t, "scheme"), map[string]string{}}
			names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,8}`), 0, 3, rapid.ID).Draw(t, "names")
			if text.Len() > 0 {
				text.WriteString(rapid.SampledFrom([]string{",", ", ", " ,\t", ",,"}).Draw(t, "between"))
			}
			text.WriteString(w.scheme)
			for i, name := range names {
				if i > 0 {
					text.WriteString(",")
				}
				v := value.Draw(t, "value")
				w.params[name] = v
				quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v)
				text.WriteString(" " + name + rapid.SampledFrom([]string{"=", " = "}).Draw(t, "is") + `"` + quoted + `"`)
			}
			all = append(all, w)
		}
		got := parseChallenges([]string{text.String()})
		require.Len(t, got, len(all), text.String())
		for i, w := range all {
			require.Equal(t, challenge{scheme: w.scheme, params: w.params}, got[i], text.String())
		}
	})
}

func FuzzChallengesNeverBreak(f *testing.F) {
	f.Add(`L402 macaroon="AGIAJEemVQUTEyNCR0exk7ek90Cg==", invoice="lnbc1500n1"`)
	f.Add(`Basic realm="\`)
	f.Add(`a=b,c`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range parseChallenges([]string{text}) {
			require.NotEmpty(t, c.scheme)
		}
		o, bad := choose(http.Header{"Www-Authenticate": {text}}, terms{network: bolt11.Regtest, maxSats: 1, now: time.Unix(0, 0)})
		require.True(t, bad != nil || o.token != "" && !strings.ContainsAny(o.token, " \r\n:"))
	})
}
