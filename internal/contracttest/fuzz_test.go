package contracttest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/server"
)

// requestsEach is how many requests the fuzz makes of every operation.
const requestsEach = 2000

// TestFuzz sends generated requests to every operation. Whatever is sent, the
// answer is one that the contract has, in the envelope when it is an error, and
// never a 5xx.
func TestFuzz(t *testing.T) {
	t.Parallel()
	from := fuzzSeed()
	t.Logf("seed %d; repeat with: go test ./internal/contracttest -run TestFuzz -seed %d", from, from)
	w := newWorld(t, contracttest.Options{})
	w.startMany(t, 300)
	for _, op := range api.Operations() {
		t.Run(op.ID, func(t *testing.T) {
			t.Parallel()
			f := newFuzzer(w, op, from)
			require.NoError(t, f.run(t, requestsEach))
			t.Logf("%d requests: %v", requestsEach, f.seen)
			require.NotEmpty(t, f.seen["success"], "no request of the fuzz succeeds")
		})
	}
}

// TestFuzzFindsABrokenHandler shows that the fuzz can fail.
func TestFuzzFindsABrokenHandler(t *testing.T) {
	t.Parallel()
	from := fuzzSeed()
	for name, c := range map[string]struct {
		op    string
		wrap  func(*server.Server) api.StrictServerInterface
		found string
	}{
		"a body that the contract does not have": {
			"health", func(s *server.Server) api.StrictServerInterface { return wrongHealth{s} }, "value must be 'ok'"},
		"a panic":      {"getRun", func(s *server.Server) api.StrictServerInterface { return panickingGetRun{s} }, "answered 500"},
		"a failure":    {"listRuns", func(s *server.Server) api.StrictServerInterface { return failingListRuns{s} }, "answered 500"},
		"another code": {"getThreadState", func(s *server.Server) api.StrictServerInterface { return wrongThread{s} }, "does not declare the status 202"},
		// Either the cut, or that the client tried again with a token that was used.
		"half a body": {"listRunEvents", func(s *server.Server) api.StrictServerInterface { return halfEvents{s} }, "listRunEvents, request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, contracttest.Options{Answers: c.wrap})
			i := slices.IndexFunc(api.Operations(), func(o api.Operation) bool { return o.ID == c.op })
			err := newFuzzer(w, api.Operations()[i], from).run(t, requestsEach)
			require.ErrorContains(t, err, c.found)
			require.ErrorContains(t, err, fmt.Sprintf("-seed %d", from))
		})
	}
}

type wrongHealth struct{ *server.Server }

func (wrongHealth) Health(context.Context, api.HealthRequestObject) (api.HealthResponseObject, error) {
	return api.Health200JSONResponse{Body: api.Health{Status: "fine", Service: "runtime"}}, nil
}

type panickingGetRun struct{ *server.Server }

func (panickingGetRun) GetRun(context.Context, api.GetRunRequestObject) (api.GetRunResponseObject, error) {
	panic("broken on purpose")
}

type failingListRuns struct{ *server.Server }

func (failingListRuns) ListRuns(context.Context, api.ListRunsRequestObject) (api.ListRunsResponseObject, error) {
	return nil, errors.New("broken on purpose")
}

type wrongThread struct{ *server.Server }

func (wrongThread) GetThreadState(context.Context, api.GetThreadStateRequestObject) (api.GetThreadStateResponseObject, error) {
	return accepted{}, nil
}

type accepted struct{}

func (accepted) VisitGetThreadStateResponse(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusAccepted)
	return nil
}

type halfEvents struct{ *server.Server }

func (halfEvents) ListRunEvents(context.Context, api.ListRunEventsRequestObject) (api.ListRunEventsResponseObject, error) {
	return half{}, nil
}

type half struct{}

func (half) VisitListRunEventsResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, err := w.Write([]byte(`{"runId":`))
	return errors.Join(err, errors.New("broken on purpose"))
}

func fuzzSeed() uint64 {
	if *seed != 0 {
		return *seed
	}
	return uint64(time.Now().UnixNano())
}

// fuzzer makes requests of one operation. What it makes depends on the seed and
// the operation alone.
type fuzzer struct {
	values
	w    *world
	op   api.Operation
	at   string // pointer to the operation
	seed uint64
	seen map[string]int
}

func newFuzzer(w *world, op api.Operation, from uint64) *fuzzer {
	h := fnv.New64a()
	h.Write([]byte(op.ID))
	doc := contracttest.Contract(w.t)
	return &fuzzer{
		values: values{rand.New(rand.NewPCG(from, h.Sum64())), doc}, w: w, op: op, seed: from, seen: map[string]int{},
		at: "/paths/" + strings.ReplaceAll(op.Path, "/", "~1") + "/" + strings.ToLower(op.Method),
	}
}

func (f *fuzzer) run(t *testing.T, n int) error {
	for i := range n {
		kind := kinds[f.rng.IntN(len(kinds))]
		if err := f.one(t, kind); err != nil {
			return fmt.Errorf("%s, request %d (%s), repeat with -seed %d: %w", f.op.ID, i, kind.name, f.seed, err)
		}
	}
	return nil
}

func (f *fuzzer) one(t *testing.T, k kind) error {
	d := f.draft()
	k.spoil(f, d)
	q := d.request(f)
	a, err := f.w.Send(t, q)
	if err != nil {
		return fmt.Errorf("%s %s was not answered: %w", q.Method, q.Target, err)
	}
	if a.Status < 300 {
		f.seen["success"]++
	}
	f.seen[strconv.Itoa(a.Status)]++
	if a.Cut {
		return fmt.Errorf("%s %s broke off after %q", q.Method, q.Target, a.Body)
	}
	err = f.w.Check(a)
	switch {
	case a.Status >= 500:
		err = errors.Join(fmt.Errorf("answered %d", a.Status), err)
	case err == nil && k.expect != nil:
		err = k.expect(f, d, a)
	}
	if err != nil {
		return fmt.Errorf("%s %s with body %.500q was answered %d %.500s: %w", q.Method, q.Target, d.body, a.Status, a.Body, err)
	}
	if k.after != nil {
		return k.after(f, t, q, a)
	}
	return nil
}

// draft is a request that is still being changed.
type draft struct {
	path    map[string]string
	query   [][2]string // name and value, as they are sent
	value   any         // of the body; nil for none
	body    []byte      // when set, instead of value
	chunked bool
	header  http.Header
	user    int64
	guest   string
	scope   auth.Scope
	claims  func(*auth.Claims)
	token   string
	signed  time.Time
}

func (f *fuzzer) draft() *draft {
	d := &draft{path: map[string]string{}, header: http.Header{}, user: 1}
	if f.op.Scope == api.ScopeOperator {
		d.scope = auth.Operator
	}
	op, _ := f.doc.At(f.at)
	ofUsers := f.op.Method == http.MethodPost && strings.HasPrefix(f.op.Path, "/internal/v1/skills/")
	if f.rng.IntN(4) == 0 && !ofUsers {
		d.user, d.guest = 0, f.w.guest
	}
	listed, _ := op["parameters"].([]any)
	for i := range listed {
		where := fmt.Sprintf("%s/parameters/%d", f.at, i)
		p, _ := f.doc.At(where)
		name := p["name"].(string)
		switch p["in"] {
		case "path":
			d.path[name] = f.id(d, name, where)
		case "query":
			if f.rng.IntN(2) == 0 {
				d.query = append(d.query, [2]string{name, f.parameter(name, where)})
			}
		case "header":
			if name == "Last-Event-ID" && f.rng.IntN(2) == 0 {
				d.header.Set(name, f.parameter(name, where))
			}
		}
	}
	if f.op.MaxBodyBytes > 0 {
		d.value = f.fit(f.at + "/requestBody/content/application~1json/schema")
		f.amend(d)
	}
	return d
}

// id names something of the principal's, mostly.
func (f *fuzzer) id(d *draft, name, where string) string {
	known := f.w.threads
	switch {
	case name == "toolCallId":
		known = f.w.calls
	case name == "skillId":
		known = f.w.skills
	case name == "version":
		known = []string{"1"}
	case f.op.ID == "reconcileSpendReservation" && name == "runId":
		known = []string{f.w.tools}
		if d.guest != "" {
			known[0] = f.w.guestTools
		}
	case name == "authorizationId" && f.op.ID == "revokeSpendAuthorization":
		known = f.w.toRevoke // the guest's are the last
		if known = known[:len(known)-1]; d.guest != "" {
			known = f.w.toRevoke[len(known):]
		}
	case name == "authorizationId" && d.guest != "":
		known = f.w.guestAuths
	case name == "authorizationId":
		known = f.w.auths
	case name == "approvalId" && d.guest != "":
		known = f.w.guestApprovals
	case name == "approvalId":
		known = f.w.approvals
	case name == "runId" && d.guest != "":
		known = f.w.guestRuns
	case name == "runId":
		known = f.w.runs
	}
	switch f.rng.IntN(10) {
	case 0:
		return fmt.Sprint(f.fit(where + "/schema"))
	case 1:
		if name == "approvalId" {
			return f.w.guestApprovals[0]
		}
		if name == "version" {
			return "2"
		}
		if name == "authorizationId" {
			return f.w.otherAuth
		}
		return f.w.other
	case 2, 3, 4: // those with something in their log come first
		return known[f.rng.IntN(min(3, len(known)))]
	default:
		return known[f.rng.IntN(len(known))]
	}
}

func (f *fuzzer) parameter(name, where string) string {
	switch {
	case name == "pageToken" && (f.op.ID == "listToolTasks" || f.op.ID == "listApprovals"):
		return strconv.FormatInt(f.rng.Int64N(1<<51), 10) + "." + f.w.calls[0]
	case name == "pageToken" && strings.HasPrefix(f.op.Path, "/internal/v1/skills/"):
		return "acme@" + strconv.Itoa(1+f.rng.IntN(9))
	case name == "pageToken" && strings.HasSuffix(f.op.Path, "/reservations"):
		return strconv.FormatInt(f.rng.Int64N(1<<51), 10) + "." + uuid.UUID{0: byte(f.rng.Uint32())}.String() + "/" + f.w.calls[0]
	case name == "pageToken" && strings.HasPrefix(f.op.Path, "/internal/v1/spend/authorizations/"):
		return fmt.Sprintf("%d.%d.%s.%s", time.Now().UnixMicro(), f.rng.Int64N(1<<50), uuid.UUID{0: byte(f.rng.Uint32())}, f.w.auths[0])
	case name == "pageToken" && f.op.ID == "listSpendAuthorizations":
		return strconv.FormatInt(f.rng.Int64N(1<<51), 10) + "." + f.w.auths[0]
	case name == "from":
		return "2026-02-18T10:00:00Z"
	case name == "to":
		return "2099-02-18T10:00:00.5Z"
	case name == "wait":
		return strconv.Itoa(f.rng.IntN(20))
	case name == "runId" && f.rng.IntN(2) == 0:
		return f.w.tools
	case name == "pageToken":
		return uuid.UUID{0: byte(f.rng.Uint32()), 6: 0x70, 8: 0x80}.String()
	case (name == "cursor" || name == "Last-Event-ID") && f.rng.IntN(4) > 0:
		return strconv.Itoa(f.rng.IntN(8))
	}
	return fmt.Sprint(f.fit(where + "/schema"))
}

// amend keeps the rules that a schema cannot state.
func (f *fuzzer) amend(d *draft) {
	body := d.value.(map[string]any)
	switch f.op.ID {
	case "startRun":
		delete(body, "userId")
		delete(body, "guestScope")
		delete(body, "authorizationId")
		if d.guest != "" {
			body["guestScope"] = d.guest
		} else {
			body["userId"], body["authenticatedSession"] = d.user, true
		}
	case "createSpendAuthorization", "amendSpendAuthorization", "reconcileSpendReservation":
		f.amendMoney(d, body)
	case "putToolSpec":
		spec := body["toolSpec"].(map[string]any)
		spec["input_schema"], spec["output_schema"] = map[string]any{"title": f.unicode()}, map[string]any{}
		delete(spec, "integration_manifest")
	case "putSkillSpec":
		spec := body["skillSpec"].(map[string]any)
		for _, name := range []string{"scripts", "references", "assets"} {
			if spec[name] != nil {
				spec[name] = []any{map[string]any{"path": "a/b.md", "content": f.unicode()}}
			}
		}
	case "executeTool":
		f.amendCall(d, body)
	case "decideApproval":
		delete(body, "content") // nobody asked for a form
		if f.rng.IntN(2) == 0 {
			delete(body, "argsHash")
			delete(body, "policyHash")
		}
	case "appendFrame":
		if body["type"] == "tool_request" {
			body["type"] = "tick"
		}
		payload := body["payload"].(map[string]any)
		delete(payload, "messages")
		delete(payload, "contextFrames")
		if f.rng.IntN(2) == 0 {
			body["type"], payload["text"] = "user_message", "x"+f.unicode()
		}
	}
}

// amendMoney keeps the rules between the members of what is asked about money.
func (f *fuzzer) amendMoney(d *draft, body map[string]any) {
	switch f.op.ID {
	case "createSpendAuthorization":
		g := body["authorization"].(map[string]any)
		for _, name := range []string{"run_id", "thread_id", "autopilot_id", "parent_authorization_id", "not_before", "threshold_sats"} {
			delete(g, name)
		}
		g["scope_kind"], g["mode"], g["max_total_sats"], g["expires_at"] = "owner", "delegated_budget", f.rng.Int64N(1000), "2099-01-01T00:00:00Z"
		switch f.rng.IntN(4) {
		case 0:
			g["mode"], g["threshold_sats"] = "delegated_budget_with_threshold", f.rng.Int64N(1000)
		case 1:
			g["scope_kind"], g["run_id"] = "run", f.w.live
		case 2:
			g["parent_authorization_id"] = f.w.auths[1]
			if d.guest != "" {
				g["parent_authorization_id"] = f.w.guestAuths[0]
			}
		}
	case "amendSpendAuthorization":
		c := body["changes"].(map[string]any)
		for _, name := range []string{"clear", "threshold_sats", "not_before", "expires_at"} {
			delete(c, name)
		}
		c["max_total_sats"] = 1_000_000 + f.rng.Int64N(1000)
		if f.rng.IntN(2) == 0 {
			var revision int64
			err := f.w.Pool.QueryRow(f.w.t.Context(), `SELECT coalesce(max(revision), 1) FROM spend_authorizations WHERE authorization_id = $1`,
				d.path["authorizationId"]).Scan(&revision)
			if err != nil {
				panic(err)
			}
			body["revision"] = revision
		}
	case "reconcileSpendReservation":
		body["evidence"] = map[string]any{"seen": f.unicode()}
		if body["outcome"] == "release" {
			delete(body, "amountSats")
		}
	}
}

// amendCall makes a call that its tool takes, mostly.
func (f *fuzzer) amendCall(d *draft, body map[string]any) {
	body["runId"] = f.w.tools
	if d.guest != "" {
		body["runId"] = f.w.guestTools
	}
	if f.rng.IntN(3) == 0 {
		body["toolCallId"] = f.w.calls[f.rng.IntN(len(f.w.calls))]
	}
	switch f.rng.IntN(4) {
	case 0:
		body["tool"], body["input"] = contracttest.AskedTool, map[string]any{"to": f.unicode()}
	default:
		body["tool"], body["input"] = contracttest.FreeTool, map[string]any{"url": "https://example.com/" + f.unicode()}
	}
}

func (d *draft) request(f *fuzzer) contracttest.Request {
	target := f.op.Path
	for name, value := range d.path {
		target = strings.ReplaceAll(target, "{"+name+"}", url.PathEscape(value))
	}
	for i, pair := range d.query {
		separator := "&"
		if i == 0 {
			separator = "?"
		}
		target += separator + pair[0] + "=" + pair[1]
	}
	q := contracttest.Request{
		Method: f.op.Method, Target: target, Header: d.header, User: d.user, Guest: d.guest, Scope: d.scope,
		Claims: d.claims, Token: d.token, SignedAt: d.signed, Chunked: d.chunked,
	}
	if d.body == nil && d.value != nil {
		raw, err := json.Marshal(d.value)
		if err != nil {
			panic(err)
		}
		d.body = raw
	}
	if d.body != nil {
		q.Body = d.body
	}
	if f.op.Streams && !slices.Contains([]string{f.w.ended, f.w.stale}, d.path["runId"]) {
		q.StopAfter = "\n\n" // a live run's stream has no end
	}
	return q
}
