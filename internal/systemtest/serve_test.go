package systemtest_test

import (
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

func TestServeRefusesToStartAndSaysWhy(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, taken.Close()) })

	migrated, empty := "DATABASE_URL="+dbtest.URL(t), "DATABASE_URL="+dbtest.EmptyURL(t)
	key := "RUNTIME_SIGNATURE_SECRET=" + secret
	anywhere := []string{"RUNTIME_API_ADDR=127.0.0.1:0", "RUNTIME_OPS_ADDR=127.0.0.1:0"}
	for name, c := range map[string]struct {
		env  []string
		says []string
	}{
		"no secret":      {[]string{migrated}, []string{"RUNTIME_SIGNATURE_SECRET is not set"}},
		"a short secret": {[]string{migrated, "RUNTIME_SIGNATURE_SECRET=k1:short"}, []string{"RUNTIME_SIGNATURE_SECRET", "32"}},
		"dev, but reachable": {[]string{migrated, "RUNTIME_ENV=dev", "RUNTIME_API_ADDR=0.0.0.0:0"},
			[]string{"RUNTIME_SIGNATURE_SECRET is not set", "not loopback"}},
		"no database":                      {[]string{key}, []string{"DATABASE_URL is not set"}},
		"no schema":                        {[]string{empty, key}, []string{"openagents-runtime migrate"}},
		"a bad duration":                   {[]string{migrated, key, "RUNTIME_LEASE_TTL=soon"}, []string{"RUNTIME_LEASE_TTL: ", "soon"}},
		"a short lease":                    {[]string{migrated, key, "RUNTIME_LEASE_TTL=10ms"}, []string{"RUNTIME_LEASE_TTL must be min 900ms"}},
		"an unknown level":                 {[]string{migrated, key, "RUNTIME_LOG_LEVEL=loud"}, []string{"RUNTIME_LOG_LEVEL must be oneof debug info warn error"}},
		"a bad address":                    {[]string{migrated, key, "RUNTIME_API_ADDR=4000"}, []string{"RUNTIME_API_ADDR must be host:port"}},
		"loops that end before they warn":  {[]string{migrated, key, "RUNTIME_LOOP_WARNING=20"}, []string{"RUNTIME_LOOP_WARNING", "warning over critical to breaker"}},
		"a narrow window":                  {[]string{migrated, key, "RUNTIME_LOOP_WINDOW=30"}, []string{"RUNTIME_LOOP_WINDOW", "more frames than the breaker"}},
		"the breaker off":                  {[]string{migrated, key, "RUNTIME_LOOP_OFF=global_circuit_breaker"}, []string{"RUNTIME_LOOP_OFF[0] must be oneof"}},
		"no losses":                        {[]string{migrated, key, "RUNTIME_MAX_LOSSES=0"}, []string{"RUNTIME_MAX_LOSSES must be min 1"}},
		"restarts that shorten":            {[]string{migrated, key, "RUNTIME_RESTART_DELAY=1m"}, []string{"RUNTIME_RESTART_DELAY must not be more than RUNTIME_MAX_RESTART_DELAY"}},
		"no checkpoint":                    {[]string{migrated, key, "RUNTIME_CHECKPOINT_STEPS=0"}, []string{"RUNTIME_CHECKPOINT_STEPS must be min 1"}},
		"a taken address":                  {[]string{migrated, key, "RUNTIME_API_ADDR=" + taken.Addr().String()}, []string{"RUNTIME_API_ADDR", "in use"}},
		"half an identity":                 {[]string{migrated, key, "RUNTIME_IDENTITY_AUDIENCE=x"}, []string{"RUNTIME_IDENTITY_ISSUER"}},
		"a nameless model":                 {[]string{migrated, key, "MODEL_PROVIDER=openai", "MODEL_BASE_URL=http://127.0.0.1:1"}, []string{"MODEL_NAME"}},
		"a tool's secret without its tool": {[]string{migrated, key, "RUNTIME_TOOL_SECRETS=hunter2"}, []string{"RUNTIME_TOOL_SECRETS: secret 1: write it as provider=secret"}},
		"an exception without a port":      {[]string{migrated, key, "RUNTIME_EGRESS_ALLOW=127.0.0.1"}, []string{"RUNTIME_EGRESS_ALLOW", "127.0.0.1"}},
		"a list of no host":                {[]string{migrated, key, "RUNTIME_HTTP_ALLOW=http://example.com/"}, []string{"RUNTIME_HTTP_", "http://example.com/"}},
		"github without TLS":               {[]string{migrated, key, "RUNTIME_GITHUB_URL=http://github.example.com"}, []string{"RUNTIME_GITHUB_", "https"}},
		"a node nowhere":                   {[]string{migrated, key, "RUNTIME_WALLET=lnd"}, []string{"RUNTIME_LND_URL must be"}},
		"a node without its key":           {[]string{migrated, key, "RUNTIME_WALLET=lnd", "RUNTIME_LND_URL=https://127.0.0.1:1", "RUNTIME_TOOL_SECRETS=lnd=hunter2"}, []string{"RUNTIME_TOOL_SECRETS has no lnd="}},
		"a node without TLS":               {[]string{migrated, key, "RUNTIME_WALLET=lnd", "RUNTIME_LND_URL=http://node.example.com", "RUNTIME_TOOL_SECRETS=lnd=0201aabbccdd"}, []string{"RUNTIME_LND_URL", "https"}},
		"a wallet without a file":          {[]string{migrated, key, "RUNTIME_WALLET=local"}, []string{"RUNTIME_WALLET_FILE is not set"}},
		"a wallet for everybody":           {[]string{migrated, key, "RUNTIME_WALLET=local", "RUNTIME_WALLET_FILE=/dev/null", "RUNTIME_WALLET_LISTEN=0.0.0.0:0"}, []string{"RUNTIME_WALLET_LISTEN", "this machine alone"}},
		"no repository":                    {[]string{migrated, key, "RUNTIME_GITHUB_REPOSITORIES=ours"}, []string{"RUNTIME_GITHUB_", `"ours" is no repository`}},
		"mail without a sender":            {[]string{migrated, key, "RUNTIME_EMAIL_RECIPIENTS=@example.com"}, []string{"RUNTIME_EMAIL_FROM is not set"}},
		"no sender":                        {[]string{migrated, key, "RUNTIME_EMAIL_FROM=nobody"}, []string{"RUNTIME_EMAIL_", "sender"}},
		"secrets without TLS":              {[]string{migrated, key, "RUNTIME_SECRETS_URL=http://control.example.com"}, []string{"RUNTIME_SECRETS_URL", "https"}},
		"too much text":                    {[]string{migrated, key, "RUNTIME_HTTP_MAX_TEXT=0"}, []string{"RUNTIME_HTTP_MAX_TEXT must be min 1"}},
		"no text at all":                   {[]string{migrated, key, "RUNTIME_HTTP_MAX_TEXT=much"}, []string{"RUNTIME_HTTP_MAX_TEXT: "}},
		"a broken database":                {[]string{"DATABASE_URL=postgres://u:hunter2@127.0.0.1:1/x", key}, []string{"127.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := finish(t, append(anywhere[:2:2], c.env...), "", "serve")
			require.Equal(t, 1, got.code, got.errors)
			for _, s := range c.says {
				require.Contains(t, got.errors, s)
			}
			require.NotContains(t, got.errors, "hunter2")
			require.NotContains(t, got.errors, "k1:a-secret")
		})
	}
}

func TestTheOperationsListenerIsApartFromTheAPI(t *testing.T) {
	t.Parallel()
	s := serve(t, dbtest.URL(t))
	for url, want := range map[string]int{
		s.ops + "/healthz": http.StatusOK, s.ops + "/readyz": http.StatusOK, s.ops + "/internal/v1/health": http.StatusNotFound,
		s.api + "/healthz": http.StatusNotFound, s.api + "/metrics": http.StatusNotFound, s.api + "/debug/pprof/": http.StatusNotFound,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		require.Equal(t, want, do(t, req).status, url)
	}
	require.Equal(t, http.StatusOK, call(t, http.MethodGet, s.api, "/health", nil).status)
}

func TestConfigPrintsTheSettingsAndNoSecret(t *testing.T) {
	t.Parallel()
	env := []string{"RUNTIME_SIGNATURE_SECRET=" + secret, "DATABASE_URL=postgres://u:hunter2@db/x", "MODEL_API_KEY=sk-1", "RUNTIME_TOOL_SECRETS=github=pass-1", "RUNTIME_EGRESS_ALLOW=127.0.0.1:1", "RUNTIME_OPS_ADDR=[::1]:0"}
	got := finish(t, env, "", "config")
	require.Equal(t, 0, got.code, got.errors)
	require.Regexp(t, `(?m)^RUNTIME_SIGNATURE_SECRET +\(set\) `, got.out)
	require.Regexp(t, `(?m)^RUNTIME_OPS_ADDR +\[::1\]:0 `, got.out)
	for name, value := range map[string]string{
		"RUNTIME_LEASE_TTL": "30s", "RUNTIME_MAX_LOSSES": "3", "RUNTIME_MAX_LOST_FOR": "1h0m0s",
		"RUNTIME_RESTART_DELAY": "500ms", "RUNTIME_MAX_RESTART_DELAY": "30s",
		"RUNTIME_CHECKPOINT_STEPS": "8", "RUNTIME_CHECKPOINT_EVENTS": "1024",
		"RUNTIME_LOOP_WINDOW": "60", "RUNTIME_LOOP_WARNING": "10", "RUNTIME_LOOP_CRITICAL": "20", "RUNTIME_LOOP_BREAKER": "30",
		"RUNTIME_TOOL_SECRETS": `\(set\)`, "RUNTIME_EGRESS_ALLOW": `\[127\.0\.0\.1:1\]`, "RUNTIME_HTTP_TIMEOUT": "30s", "RUNTIME_EMAIL_MAX_RECIPIENTS": "5",
	} {
		require.Regexp(t, `(?m)^`+name+` +`+value+` `, got.out)
	}
	for _, hidden := range []string{"hunter2", "a-secret", "sk-1", "pass-1"} {
		require.NotContains(t, got.out, hidden)
	}
}
