package policy_test

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
)

func p[T any](v T) *T { return &v }

func decide(t require.TestingT, in ds.PolicyEvaluationV1Input) policy.Evaluation {
	e, err := policy.Decide(in)
	require.NoError(t, err)
	return e
}

var now = time.Date(2026, 2, 20, 10, 0, 0, 0, time.UTC)

const args = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// paid is a call of 10 sats that is allowed.
func paid() ds.PolicyEvaluationV1Input {
	return ds.PolicyEvaluationV1Input{
		Action:        ds.PolicyEvaluationV1Action{Kind: "tool", ToolName: p("pay.invoice"), AmountSats: p[int64](10), ArgsHash: p(args), Writes: p(true)},
		Policy:        &ds.PolicyEvaluationV1Policy{PolicyID: p("p"), AuthorizationID: p("auth_1"), AuthorizationMode: p("delegated_budget")},
		Authorization: &ds.PolicyEvaluationV1Authorization{},
		Budget:        &ds.PolicyEvaluationV1Budget{RemainingSats: p[int64](100)},
		EvaluatedAt:   p(now),
	}
}

func TestEachRuleHasItsReason(t *testing.T) {
	t.Parallel()
	type input = ds.PolicyEvaluationV1Input
	for name, c := range map[string]struct {
		change func(*input)
		code   string
	}{
		"nothing stands against it": {func(*input) {}, "policy_allowed.default"},
		"system":                    {func(in *input) { in.Policy.AuthorizationMode = p("system") }, "policy_allowed.system"},
		"manifest":                  {func(in *input) { in.Context = &ds.PolicyEvaluationV1Context{ManifestValidationReason: p("whatever")} }, "manifest_validation.invalid_schema"},
		"loop": {func(in *input) {
			in.Context = &ds.PolicyEvaluationV1Context{LoopDetectedReason: p("loop_detected.oscillation")}
		}, "loop_detected.oscillation"},
		"loop of another domain": {func(in *input) {
			in.Context = &ds.PolicyEvaluationV1Context{LoopDetectedReason: p("policy_allowed.default")}
		}, "loop_detected.no_progress"},
		"address": {func(in *input) {
			in.Context = &ds.PolicyEvaluationV1Context{SsrfBlockReason: p("ssrf_block.metadata_endpoint")}
		}, "ssrf_block.metadata_endpoint"},
		"a blank reason is none": {func(in *input) {
			in.Context = &ds.PolicyEvaluationV1Context{SsrfBlockReason: p("  "), LoopDetectedReason: p("")}
		}, "policy_allowed.default"},
		"manifest before loop": {func(in *input) {
			in.Context = &ds.PolicyEvaluationV1Context{LoopDetectedReason: p("x"), SsrfBlockReason: p("x"), ManifestValidationReason: p("x")}
		}, "manifest_validation.invalid_schema"},
		"explicit": {func(in *input) { in.Policy.RequestedDecision = p("denied") }, "policy_denied.explicit_deny"},
		"explicit, with its reason": {func(in *input) {
			in.Policy.RequestedDecision, in.Policy.RequestedReasonCode = p(" Denied "), p("policy_denied.consent_required")
		}, "policy_denied.consent_required"},
		"no denial because of allowance": {func(in *input) {
			in.Policy.RequestedDecision, in.Policy.RequestedReasonCode = p("denied"), p("policy_allowed.default")
		}, "policy_denied.explicit_deny"},
		"a decision nobody knows": {func(in *input) { in.Policy.RequestedDecision = p("perhaps") }, "policy_denied.explicit_deny"},
		"no authorization":        {func(in *input) { in.Policy.AuthorizationID = p(" ") }, "policy_denied.authorization_missing"},
		"mode":                    {func(in *input) { in.Policy.AuthorizationMode = p("free") }, "policy_denied.invalid_authorization_mode"},
		"no mode":                 {func(in *input) { in.Policy.AuthorizationMode = nil }, "policy_denied.invalid_authorization_mode"},
		"revoked":                 {func(in *input) { in.Authorization.RevokedAt = p(now.Add(-time.Hour)) }, "policy_denied.authorization_revoked"},
		"expired":                 {func(in *input) { in.Authorization.ExpiresAt = p(now) }, "policy_denied.authorization_expired"},
		"not yet expired":         {func(in *input) { in.Authorization.ExpiresAt = p(now.Add(time.Nanosecond)) }, "policy_allowed.default"},
		"not started":             {func(in *input) { in.Authorization.StartsAt = p(now.Add(time.Second)) }, "policy_denied.authorization_not_started"},
		"a bound without a clock": {func(in *input) { in.Authorization.ExpiresAt, in.EvaluatedAt = p(now), nil }, "policy_denied.outside_time_window"},
		"mode deny":               {func(in *input) { in.Policy.AuthorizationMode = p("deny") }, "policy_denied.explicit_deny"},
		"list": {func(in *input) {
			in.Policy.Layers = []ds.PolicyEvaluationV1Layer{{Label: "run", Deny: []string{"pay.*"}}}
		}, "policy_denied.tool_not_allowed"},
		"not on a list": {func(in *input) {
			in.Policy.Layers = []ds.PolicyEvaluationV1Layer{{Label: "run", Allow: []string{"http.fetch"}}}
		}, "policy_denied.tool_not_allowed"},
		"guest": {func(in *input) { in.Policy.GuestMode = p(true) }, "policy_denied.guest_mode"},
		"guest list": {func(in *input) {
			in.Policy.GuestMode, in.Policy.Layers = p(true), []ds.PolicyEvaluationV1Layer{{Label: "guest", Allow: []string{"x"}}}
		}, "policy_denied.guest_mode"},
		"no tool":                   {func(in *input) { in.Action.ToolName = nil }, "policy_denied.tool_not_allowed"},
		"tool of the authorization": {func(in *input) { in.Authorization.AllowedTools = []string{"http.*"} }, "policy_denied.tool_not_allowed"},
		"host": {func(in *input) {
			in.Action.Domain, in.Authorization.AllowedDomains = p("evil-example.com"), []string{"*.example.com", "example.com"}
		}, "policy_denied.domain_not_allowed"},
		"host below": {func(in *input) {
			in.Action.Domain, in.Authorization.AllowedDomains = p("API.example.com."), []string{"*.Example.com"}
		}, "policy_allowed.default"},
		"provider":              {func(in *input) { in.Action.Provider, in.Authorization.AllowedProviders = p("lnd"), []string{"cashu"} }, "policy_denied.provider_not_allowed"},
		"model":                 {func(in *input) { in.Action.Model, in.Authorization.AllowedModels = p("big"), []string{"small"} }, "policy_denied.model_not_allowed"},
		"per call":              {func(in *input) { in.Budget.MaxPerCallSats = p[int64](9) }, "policy_denied.per_call_limit_exceeded"},
		"per day":               {func(in *input) { in.Budget.MaxPerDaySats, in.Budget.DaySpentSats = p[int64](100), p[int64](91) }, "policy_denied.per_day_limit_exceeded"},
		"the day's last":        {func(in *input) { in.Budget.MaxPerDaySats, in.Budget.DaySpentSats = p[int64](100), p[int64](90) }, "policy_allowed.default"},
		"total, with the call":  {func(in *input) { in.Budget.RemainingSats = p[int64](9) }, "policy_denied.budget_exhausted"},
		"nothing left":          {func(in *input) { in.Budget.RemainingSats, in.Action.AmountSats = p[int64](0), p[int64](0) }, "policy_denied.budget_exhausted"},
		"a budget nobody knows": {func(in *input) { in.Budget = nil }, "policy_denied.budget_exhausted"},
		"threshold": {func(in *input) {
			in.Policy.AuthorizationMode, in.Budget.ThresholdSats = p("delegated_budget_with_threshold"), p[int64](9)
		}, "policy_denied.approval_required"},
		"at the threshold": {func(in *input) {
			in.Policy.AuthorizationMode, in.Budget.ThresholdSats = p("delegated_budget_with_threshold"), p[int64](10)
		}, "policy_allowed.default"},
		"no threshold":         {func(in *input) { in.Policy.AuthorizationMode = p("delegated_budget_with_threshold") }, "policy_denied.approval_required"},
		"interactive":          {func(in *input) { in.Policy.AuthorizationMode = p("interactive") }, "policy_denied.approval_required"},
		"asked for":            {func(in *input) { in.Policy.RequireApproval = []string{"PAY.*"} }, "policy_denied.approval_required"},
		"writes are asked for": {func(in *input) { in.Policy.RequireApproval = []string{"group:writes"} }, "policy_denied.approval_required"},
		"too many are asked": {func(in *input) {
			in.Policy.RequireApproval, in.Queue = []string{"*"}, &ds.PolicyEvaluationV1Queue{Pending: 3, Most: 3}
		}, "policy_denied.too_many_approvals"},
		"one more may be asked": {func(in *input) {
			in.Policy.RequireApproval, in.Queue = []string{"*"}, &ds.PolicyEvaluationV1Queue{Pending: 2, Most: 3}
		}, "policy_denied.approval_required"},
		"nobody need be asked": {func(in *input) { in.Queue = &ds.PolicyEvaluationV1Queue{Pending: 9, Most: 3} }, "policy_allowed.default"},
		"too often":            {func(in *input) { in.Rate = &ds.PolicyEvaluationV1Rate{PerMinute: 2, Used: 2} }, "policy_denied.rate_limited"},
		"the minute's last":    {func(in *input) { in.Rate = &ds.PolicyEvaluationV1Rate{PerMinute: 2, Used: 1} }, "policy_allowed.default"},
		"too often for a question": {func(in *input) {
			in.Rate, in.Policy.RequireApproval = &ds.PolicyEvaluationV1Rate{PerMinute: 2, Used: 2}, []string{"*"}
		}, "policy_denied.rate_limited"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := paid()
			c.change(&in)
			got := decide(t, in)
			require.Equal(t, c.code, got.ReasonCode)
			want := policy.Denied
			switch {
			case c.code == "policy_denied.approval_required":
				want = policy.NeedsApproval
			case got.ReasonCode[:14] == "policy_allowed":
				want = policy.Allowed
			}
			require.Equal(t, want, got.Decision)
		})
	}
}

func TestAPlainToolCallNeedsNobodysAuthorization(t *testing.T) {
	t.Parallel()
	in := ds.PolicyEvaluationV1Input{Action: ds.PolicyEvaluationV1Action{Kind: "tool", ToolName: p("http.fetch")}}
	require.Equal(t, "policy_allowed.default", decide(t, in).ReasonCode)
	in.Action.AmountSats = p[int64](0)
	require.Equal(t, "policy_allowed.default", decide(t, in).ReasonCode)
	in.Action.AmountSats = p[int64](1)
	require.Equal(t, "policy_denied.authorization_missing", decide(t, in).ReasonCode)
	in.Action = ds.PolicyEvaluationV1Action{Kind: "settlement"}
	require.Equal(t, "policy_denied.authorization_missing", decide(t, in).ReasonCode)
}

func TestAnApprovalCountsForTheseArgumentsUnderTheseRules(t *testing.T) {
	t.Parallel()
	in := paid()
	in.Policy.RequireApproval = []string{"pay.invoice"}
	first := decide(t, in)
	require.Equal(t, policy.NeedsApproval, first.Decision)

	with := func(state string, args, hash *string) policy.Evaluation {
		in := in
		in.Approval = &ds.PolicyEvaluationV1Approval{ApprovalID: "a", State: state, ArgsHash: args, PolicyHash: hash}
		return decide(t, in)
	}
	ok := with("approved", p(args), p(first.PolicyHash))
	require.Equal(t, "policy_allowed.approved_interactively", ok.ReasonCode)
	require.Equal(t, first.PolicyHash, ok.PolicyHash)
	other := p("sha256:" + first.Hash[7:])
	for _, e := range []policy.Evaluation{
		with("approved", other, p(first.PolicyHash)), with("approved", p(args), other), with("approved", nil, p(first.PolicyHash)),
		with("approved", p(args), nil), with("pending", p(args), p(first.PolicyHash)), with("", p(args), p(first.PolicyHash)),
	} {
		require.Equal(t, policy.NeedsApproval, e.Decision)
	}
	require.Equal(t, "policy_denied.approval_rejected", with("rejected", nil, nil).ReasonCode)
	require.Equal(t, "policy_denied.approval_expired", with("expired", nil, nil).ReasonCode)

	// An approval opens no other door.
	in.Policy.Layers = []ds.PolicyEvaluationV1Layer{{Label: "run", Deny: []string{"pay.invoice"}}}
	require.Equal(t, "policy_denied.tool_not_allowed", with("approved", p(args), p(first.PolicyHash)).ReasonCode)
}

func TestThePolicyHashMovesWithTheRulesAlone(t *testing.T) {
	t.Parallel()
	base, err := policy.PolicyHash(paid())
	require.NoError(t, err)
	in := paid()
	in.Action.AmountSats, in.Budget.RemainingSats, in.Budget.SpentSats, in.EvaluatedAt = p[int64](11), p[int64](1), p[int64](5), p(now.Add(time.Hour))
	in.Approval = &ds.PolicyEvaluationV1Approval{ApprovalID: "a", State: "approved"}
	same, err := policy.PolicyHash(in)
	require.NoError(t, err)
	require.Equal(t, base, same)
	for _, change := range []func(*ds.PolicyEvaluationV1Input){
		func(in *ds.PolicyEvaluationV1Input) { in.Policy.RequireApproval = []string{"x"} },
		func(in *ds.PolicyEvaluationV1Input) { in.Budget.ThresholdSats = p[int64](5) },
		func(in *ds.PolicyEvaluationV1Input) { in.Authorization.AllowedTools = []string{"x"} },
		func(in *ds.PolicyEvaluationV1Input) { in.Authorization.ExpiresAt = p(now.Add(time.Hour)) },
	} {
		in := paid()
		change(&in)
		other, err := policy.PolicyHash(in)
		require.NoError(t, err)
		require.NotEqual(t, base, other)
	}
}

func TestADocumentReplaysToItsHash(t *testing.T) {
	t.Parallel()
	berlin := time.FixedZone("", 3600)
	in := paid()
	in.EvaluatedAt, in.Authorization.ExpiresAt = p(now.In(berlin)), p(now.Add(time.Hour).In(berlin))
	e := decide(t, in)
	require.Equal(t, e.Hash, canon.Hash(e.Document))
	require.Equal(t, berlin, in.EvaluatedAt.Location(), "the argument stays as it is")
	var loose map[string]any
	require.NoError(t, json.Unmarshal(e.Document, &loose))
	indented, err := json.MarshalIndent(loose, "", "  ")
	require.NoError(t, err)
	again, err := policy.Replay(indented)
	require.NoError(t, err)
	require.Equal(t, e, again)

	for _, change := range []func(){
		func() { loose["decision"] = "denied" },
		func() { loose["decision"], loose["reason_code"] = "allowed", "policy_allowed.system" },
		func() { loose["evaluator_version"] = "pe/0.0.1" },
	} {
		change()
		forged, err := json.Marshal(loose)
		require.NoError(t, err)
		_, err = policy.Replay(forged)
		require.ErrorIs(t, err, policy.ErrReplay)
	}
	_, err = policy.Replay([]byte(`{"decision":"allowed","surplus":1}`))
	require.Error(t, err)
}

// A change of what Decide writes for the same input must be a new Version.
func TestTheHashIsTheSameTomorrow(t *testing.T) {
	t.Parallel()
	require.Equal(t, "sha256:d5306fb43a4dbfdf4ed37484dfff3c559abab646c766386fd3bc9495c5df599c", decide(t, paid()).Hash)
}

var (
	entries = rapid.SampledFrom([]string{"http.fetch", "http.*", "*", "group:web", "group:reads", "pay.invoice", "Pay.Invoice", "mcp.*.read", "ｈttp.fetch", "", "group:"})
	names   = rapid.SampledFrom([]string{"http.fetch", "pay.invoice", "mcp.a.read", "HTTP.Fetch", "httр.fetch"})
)

func layers(t *rapid.T) []ds.PolicyEvaluationV1Layer {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) ds.PolicyEvaluationV1Layer {
		return ds.PolicyEvaluationV1Layer{
			Label: rapid.SampledFrom([]string{"profile", "run", "guest"}).Draw(t, "label"),
			Allow: rapid.SliceOfN(entries, 0, 3).Draw(t, "allow"), Deny: rapid.SliceOfN(entries, 0, 2).Draw(t, "deny"),
		}
	}), 0, 4).Draw(t, "layers")
}

func inputs(t *rapid.T) ds.PolicyEvaluationV1Input {
	in := paid()
	in.Action.ToolName = p(names.Draw(t, "name"))
	in.Action.ToolGroup = rapid.SampledFrom([]*string{nil, p("web")}).Draw(t, "group")
	in.Action.Writes = rapid.SampledFrom([]*bool{nil, p(true), p(false)}).Draw(t, "writes")
	in.Action.AmountSats = rapid.Ptr(rapid.Int64Range(0, 200), true).Draw(t, "amount")
	in.Policy.Layers = layers(t)
	in.Policy.GuestMode = rapid.Ptr(rapid.Bool(), true).Draw(t, "guest")
	in.Policy.RequireApproval = rapid.SliceOfN(entries, 0, 2).Draw(t, "require")
	in.Policy.AuthorizationMode = rapid.SampledFrom([]*string{nil, p("system"), p("interactive"), p("delegated_budget"), p("delegated_budget_with_threshold"), p("deny")}).Draw(t, "mode")
	in.Budget.ThresholdSats = rapid.Ptr(rapid.Int64Range(0, 200), true).Draw(t, "threshold")
	in.Budget.RemainingSats = rapid.Ptr(rapid.Int64Range(-5, 200), true).Draw(t, "remaining")
	if rapid.Bool().Draw(t, "unauthorized") {
		in.Policy.AuthorizationID, in.Policy.AuthorizationMode, in.Authorization = nil, nil, nil
	}
	return in
}

var rank = map[string]int{policy.Denied: 0, policy.NeedsApproval: 1, policy.Allowed: 2}

func TestADenialIsNeverOutvoted(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := inputs(t)
		before := decide(t, in)
		name := *in.Action.ToolName
		in.Policy.Layers = append(slices.Clone(in.Policy.Layers), ds.PolicyEvaluationV1Layer{Label: "x", Allow: []string{"*"}, Deny: []string{name}})
		require.Equal(t, policy.Denied, decide(t, in).Decision)
		in.Policy.Layers[len(in.Policy.Layers)-1].Deny = []string{entries.Draw(t, "another")}
		require.LessOrEqual(t, rank[decide(t, in).Decision], rank[before.Decision], "one more list never allows more")
	})
}

func TestMoreDenyEntriesNeverAllowMore(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := inputs(t)
		before := decide(t, in)
		if len(in.Policy.Layers) == 0 {
			return
		}
		i := rapid.IntRange(0, len(in.Policy.Layers)-1).Draw(t, "layer")
		in.Policy.Layers = slices.Clone(in.Policy.Layers)
		in.Policy.Layers[i].Deny = append(slices.Clone(in.Policy.Layers[i].Deny), entries.Draw(t, "entry"))
		require.LessOrEqual(t, rank[decide(t, in).Decision], rank[before.Decision])
		in.Policy.RequireApproval = append(slices.Clone(in.Policy.RequireApproval), entries.Draw(t, "approval"))
		require.LessOrEqual(t, rank[decide(t, in).Decision], rank[before.Decision])
	})
}

func TestTheOrderOfListsDoesNotDecide(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := inputs(t)
		before := decide(t, in)
		in.Policy.Layers = rapid.Permutation(in.Policy.Layers).Draw(t, "layers")
		in.Policy.RequireApproval = rapid.Permutation(in.Policy.RequireApproval).Draw(t, "require")
		for i, l := range in.Policy.Layers {
			in.Policy.Layers[i].Allow = rapid.Permutation(l.Allow).Draw(t, "allow")
			in.Policy.Layers[i].Deny = rapid.Permutation(l.Deny).Draw(t, "deny")
		}
		require.Equal(t, before.Decision, decide(t, in).Decision)
	})
}

func TestEveryDecisionReplays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := decide(t, inputs(t))
		again, err := policy.Replay(e.Document)
		require.NoError(t, err)
		require.Equal(t, e, again)
		require.NotZero(t, ds.ReasonCode(e.ReasonCode).Number())
	})
}

// When there is room again is part of what is decided, and only of that.
func TestARefusalForItsRateSaysWhenToComeAgain(t *testing.T) {
	t.Parallel()
	in := paid()
	in.Rate = &ds.PolicyEvaluationV1Rate{PerMinute: 2, Used: 2, RetryAfterMs: p[int64](1500)}
	e := decide(t, in)
	require.Equal(t, 1500*time.Millisecond, e.RetryAfter)
	again, err := policy.Replay(e.Document)
	require.NoError(t, err)
	require.Equal(t, e, again)
	in.Policy.Layers = []ds.PolicyEvaluationV1Layer{{Label: "run", Deny: []string{"*"}}}
	require.Zero(t, decide(t, in).RetryAfter, "waiting would not help")
	before := paid()
	before.Rate, before.Queue = in.Rate, &ds.PolicyEvaluationV1Queue{Pending: 1, Most: 1}
	require.Equal(t, decide(t, paid()).PolicyHash, decide(t, before).PolicyHash, "the rules are the same")
}

// FuzzDecide feeds any input that can be read: no panic, and what is decided replays.
func FuzzDecide(f *testing.F) {
	seed, err := json.Marshal(paid())
	require.NoError(f, err)
	f.Add(seed)
	f.Add([]byte(`{"action":{"kind":"tool","tool_name":"a*"},"policy":{"layers":[{"label":"x","deny":["**a*b*"]}]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var in ds.PolicyEvaluationV1Input
		if json.Unmarshal(raw, &in) != nil {
			return
		}
		e, err := policy.Decide(in)
		if err != nil {
			require.Zero(t, e)
			return
		}
		again, err := policy.Replay(e.Document)
		require.NoError(t, err)
		require.Equal(t, e.Hash, again.Hash)
	})
}

// The JSON file, the Go constants and the PHP enum are one list.
func TestTheTaxonomyIsTheSameInEveryLanguage(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../schemas/ds/taxonomy/runtime-policy-reasons.v1.json")
	require.NoError(t, err)
	var taxonomy struct {
		Version string `json:"reason_codes_version"`
		Codes   []struct {
			Code   string `json:"code"`
			Number int    `json:"number"`
		} `json:"codes"`
	}
	require.NoError(t, json.Unmarshal(raw, &taxonomy))
	require.Equal(t, policy.ReasonCodesVersion, taxonomy.Version)
	php, err := os.ReadFile("../../gen/php/src/DS/ReasonCode.php")
	require.NoError(t, err)
	inPHP := phpNumbers(t, string(php))
	require.Len(t, inPHP, len(taxonomy.Codes))
	require.Len(t, ds.ReasonCodes(), len(taxonomy.Codes))
	for i, c := range taxonomy.Codes {
		require.Equal(t, c.Code, string(ds.ReasonCodes()[i]))
		require.Equal(t, c.Number, ds.ReasonCode(c.Code).Number(), c.Code)
		require.Equal(t, c.Number, inPHP[c.Code], c.Code)
		require.True(t, ds.ReasonCode(c.Code).Valid(), c.Code)
		require.NotEmpty(t, ds.ReasonCode(c.Code).Description(), c.Code)
	}
}
