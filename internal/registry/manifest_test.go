package registry_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/registry"
)

// manifest is the contract's example, of coding.v1.
func manifest(t testing.TB) map[string]any {
	t.Helper()
	raw, err := os.ReadFile("../../schemas/ds/fixtures/extension_manifest.v1.json")
	require.NoError(t, err)
	return decoded(t, string(raw))
}

func decoded(t testing.TB, raw string) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(raw), &m))
	return m
}

const (
	comms = `{"manifest_version":"comms.integration.v1","integration_id":"resend.primary","tool_pack":"comms.v1","provider":"resend","status":"active",
		"capabilities":["send","record_delivery_event"],"secrets_ref":{"provider":"laravel","key_id":"resend_key"},
		"policy":{"consent_required":true,"suppression_mode":"enforce","max_send_per_minute":120},
		"webhook":{"verification":"hmac_sha256","events":["delivered","bounced"]}}`
	mcp = `{"manifest_version":"mcp.integration.v1","integration_id":"acme.orders","tool_pack":"mcp.v1","provider":"acme","status":"active",
		"capabilities":["lookup"],"policy":{"max_requests_per_minute":60},"metadata":{"team":"desk"}}`
)

func put(t *testing.T, r *registry.Registry, pack string, m map[string]any) error {
	t.Helper()
	spec := lookup("acme.lookup", 1)
	spec.ToolPack, spec.IntegrationManifest = pack, m
	_, err := r.PutTool(t.Context(), ada, &draft, spec)
	return err
}

func TestManifestsOfEachFormAreTaken(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	require.NoError(t, put(t, r, "coding.v1", manifest(t)))
	require.NoError(t, put(t, r, "comms.v1", decoded(t, comms)))
	require.NoError(t, put(t, r, "mcp.v1", decoded(t, mcp)))
}

func TestAManifestsFaultsAreAllTold(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	for name, c := range map[string]struct {
		of     string // coding when empty
		change func(m map[string]any)
		paths  []string
	}{
		"nothing":               {change: func(m map[string]any) { clear(m) }, paths: []string{"/manifest_version"}},
		"another form":          {change: func(m map[string]any) { m["manifest_version"] = "coding.integration.v2" }, paths: []string{"/manifest_version"}},
		"a number as form":      {change: func(m map[string]any) { m["manifest_version"] = 1 }, paths: []string{"/manifest_version"}},
		"two faults":            {change: func(m map[string]any) { m["provider"], m["status"] = "gitlab", "on" }, paths: []string{"/provider", "/status"}},
		"missing sections":      {change: func(m map[string]any) { delete(m, "policy"); delete(m, "secrets_ref") }, paths: []string{"/policy", "/secrets_ref"}},
		"an unknown member":     {change: func(m map[string]any) { m["plugin_id"] = "x" }, paths: []string{"/plugin_id"}},
		"another name's own id": {change: func(m map[string]any) { m["extension_id"] = "github.secondary" }, paths: []string{"/extension_id"}},
		"a short other name":    {change: func(m map[string]any) { m["extension_id"] = "x" }, paths: []string{"/extension_id"}},
		"only a short other name": {change: func(m map[string]any) { delete(m, "integration_id"); m["extension_id"] = "x" },
			paths: []string{"/extension_id"}},
		"ids of objects": {change: func(m map[string]any) {
			m["integration_id"], m["extension_id"] = map[string]any{}, map[string]any{}
		},
			paths: []string{"/extension_id", "/integration_id"}},
		"no id":                {change: func(m map[string]any) { delete(m, "integration_id") }, paths: []string{"/integration_id"}},
		"an odd name":          {change: func(m map[string]any) { m["a/b~c"] = "x" }, paths: []string{"/a~1b~0c"}},
		"a short id":           {change: func(m map[string]any) { m["integration_id"] = "ab" }, paths: []string{"/integration_id"}},
		"an id with a space":   {change: func(m map[string]any) { m["integration_id"] = "a b c" }, paths: []string{"/integration_id"}},
		"no capabilities":      {change: func(m map[string]any) { m["capabilities"] = []any{} }, paths: []string{"/capabilities", "/capabilities"}},
		"a capability twice":   {change: func(m map[string]any) { m["capabilities"] = []any{"get_issue", "get_issue"} }, paths: []string{"/capabilities"}},
		"too few capabilities": {change: func(m map[string]any) { m["capabilities"] = []any{"get_issue", "add_issue_comment"} }, paths: []string{"/capabilities"}},
		"other capabilities":   {change: func(m map[string]any) { m["capabilities"] = []any{"get_issue", "get_pull_request", "push"} }, paths: []string{"/capabilities/2"}},
		"another pack":         {change: func(m map[string]any) { m["tool_pack"] = "comms.v1" }, paths: []string{"/tool_pack"}},
		"rate of nothing":      {change: func(m map[string]any) { policy(m)["max_requests_per_minute"] = 0 }, paths: []string{"/policy/max_requests_per_minute"}},
		"rate without bound":   {change: func(m map[string]any) { policy(m)["max_requests_per_minute"] = 10001 }, paths: []string{"/policy/max_requests_per_minute"}},
		"a repository's URL":   {change: func(m map[string]any) { policy(m)["default_repository"] = "https://x/y" }, paths: []string{"/policy/default_repository"}},
		"a secret in it": {change: func(m map[string]any) {
			m["secrets_ref"] = map[string]any{"provider": "laravel", "key_id": "k_1", "key": "s"}
		},
			paths: []string{"/secrets_ref/key"}},
		"no webhook":         {of: comms, change: func(m map[string]any) { delete(m, "webhook") }, paths: []string{"/webhook"}},
		"no send":            {of: comms, change: func(m map[string]any) { m["capabilities"] = []any{"record_delivery_event"} }, paths: []string{"/capabilities"}},
		"other notices":      {of: comms, change: func(m map[string]any) { m["webhook"].(map[string]any)["events"] = []any{"opened"} }, paths: []string{"/webhook/events/0"}},
		"consent as a text":  {of: comms, change: func(m map[string]any) { policy(m)["consent_required"] = "yes" }, paths: []string{"/policy/consent_required"}},
		"a server's secrets": {of: mcp, change: func(m map[string]any) { m["secrets_ref"] = map[string]any{"provider": "env", "key_id": "KEY"} }, paths: []string{"/secrets_ref/provider"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, pack := manifest(t), "coding.v1"
			if c.of != "" {
				m = decoded(t, c.of)
				pack = m["tool_pack"].(string)
			}
			c.change(m)
			err := put(t, r, pack, m)
			requireFault(t, err, api.ManifestInvalid)
			var f *fault.Error
			require.True(t, errors.As(err, &f))
			wrong := f.Details["errors"].([]registry.ManifestError)
			var paths []string
			for _, w := range wrong {
				require.Equal(t, registry.InvalidManifest, w.ReasonCode)
				require.NotEmpty(t, w.Message)
				paths = append(paths, w.Path)
			}
			require.Equal(t, c.paths, paths, "%v", wrong)
		})
	}
}

func policy(m map[string]any) map[string]any { return m["policy"].(map[string]any) }

func TestAManifestIsOfItsToolsPack(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	requireFault(t, put(t, r, "mcp.v1", manifest(t)), api.ManifestInvalid)
}

// Whichever name the id came under, it is kept under both, and is the same spec.
func TestAnIntegrationHasOneIDUnderBothNames(t *testing.T) {
	t.Parallel()
	r := open(t, dbtest.New(t))
	var first registry.Entry
	for i, names := range [][]string{{"integration_id"}, {"extension_id"}, {"integration_id", "extension_id"}} {
		m := manifest(t)
		delete(m, "integration_id")
		for _, name := range names {
			m[name] = "github.main"
		}
		sent := maps.Clone(m)
		spec := lookup("acme.lookup", 1)
		spec.ToolPack, spec.IntegrationManifest = "coding.v1", m
		e, err := r.PutTool(t.Context(), ada, nil, spec)
		require.NoError(t, err)
		require.Equal(t, sent, m, "the caller's manifest is its own")
		var stored ds.ToolSpecV1
		require.NoError(t, json.Unmarshal(e.Spec, &stored))
		require.Equal(t, "github.main", stored.IntegrationManifest["integration_id"])
		require.Equal(t, "github.main", stored.IntegrationManifest["extension_id"])
		if i == 0 {
			first = e
		}
		require.Equal(t, first, e)
	}
}

func TestTheRateOfAManifest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		manifest map[string]any
		want     registry.Rate
	}{
		{manifest(t), registry.Rate{ToolPack: "coding.v1", Provider: "github", PerMinute: 240}},
		{decoded(t, comms), registry.Rate{ToolPack: "comms.v1", Provider: "resend", PerMinute: 120}},
		{decoded(t, mcp), registry.Rate{ToolPack: "mcp.v1", Provider: "acme", PerMinute: 60}},
	} {
		rate, ok := registry.RateOf(c.manifest)
		require.True(t, ok)
		require.Equal(t, c.want, rate)
		for _, status := range []string{"inactive", "error"} {
			c.manifest["status"] = status
			_, ok := registry.RateOf(c.manifest)
			require.False(t, ok, status)
		}
	}
	_, ok := registry.RateOf(nil)
	require.False(t, ok)
}

// The newest version that is neither a draft nor deprecated counts, and nobody
// else's.
func TestTheRatesOfAnOwner(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	r := open(t, pool)
	per := func(n float64) map[string]any {
		m := decoded(t, mcp)
		m["policy"] = map[string]any{"max_requests_per_minute": n}
		return m
	}
	store := func(owner, id string, version int32, state string, m map[string]any) {
		t.Helper()
		spec := lookup(id, version)
		spec.IntegrationManifest = m
		_, err := r.PutTool(t.Context(), owner, &state, spec)
		require.NoError(t, err)
	}
	require.Empty(t, rates(t, pool, ada))
	store(ada, "acme.a", 1, validated, per(10))
	require.Equal(t, []int{10}, rates(t, pool, ada))
	store(ada, "acme.a", 2, published, per(20))
	store(ada, "acme.a", 3, draft, per(1))
	require.Equal(t, []int{20}, rates(t, pool, ada))
	store(ada, "acme.b", 1, validated, per(30))
	store(eve, "acme.c", 1, validated, per(40))
	require.Equal(t, []int{20, 30}, rates(t, pool, ada))
	require.Equal(t, []int{40}, rates(t, pool, eve))
	store(ada, "acme.a", 2, deprecated, per(20))
	require.Equal(t, []int{10, 30}, rates(t, pool, ada))
	odd := lookup("acme.odd", 1)
	odd.Description = "not of \x00 text: \"integration_manifest\""
	_, err := r.PutTool(t.Context(), ada, &validated, odd)
	require.NoError(t, err)
	require.Equal(t, []int{10, 30}, rates(t, pool, ada))
	store(ada, "acme.a", 4, validated, nil)
	require.Equal(t, []int{30}, rates(t, pool, ada), "the newest declares none")
}

func rates(t *testing.T, pool *pgxpool.Pool, owner string) []int {
	t.Helper()
	declared, err := registry.RatesOf(t.Context(), pool, owner)
	require.NoError(t, err)
	var perMinute []int
	for _, r := range declared {
		require.Equal(t, "acme", r.Provider)
		perMinute = append(perMinute, r.PerMinute)
	}
	return perMinute
}
