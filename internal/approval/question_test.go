package approval_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

const form = `{"type":"object","required":["branch"],"additionalProperties":false,"properties":{
	"branch":{"type":"string","minLength":1,"maxLength":20},"force":{"type":"boolean"},"mode":{"type":"string","enum":["a","b"]},"depth":{"type":"integer","minimum":1}}}`

func TestAnAnswerIsWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	for i, c := range []struct {
		request, state, content string
		problem                 string // or what is stored
		stored                  string
	}{
		{`{"question":{"message":"?","schema":` + form + `}}`, approval.Approved, `{"mode":"a", "branch":"main","depth":3}`, "", `{"branch":"main","depth":3,"mode":"a"}`},
		{`{"question":{"message":"?","schema":` + form + `}}`, approval.Rejected, ``, "", ``},
		{`{"question":{"message":"?","schema":{"type":"object"}}}`, approval.Approved, ``, "", `{}`},
		{`{"question":{"message":"?"}}`, approval.Approved, `{}`, "", ``},
		{`{"question":{"message":"?"}}`, approval.Approved, ``, "", ``},
		{`{"tool_name":"x"}`, approval.Approved, `{}`, "", ``},
		{`{"question":{"message":"?","schema":` + form + `}}`, approval.Approved, ``, "/ lacks branch", ""},
		{`{"question":{"message":"?","schema":` + form + `}}`, approval.Approved, `{"branch":"main","mode":"c"}`, "/mode must be one of [a b]", ""},
		{`{"question":{"message":"?","schema":` + form + `}}`, approval.Approved, `{"branch":7}`, "/branch must be string", ""},
		{`{"question":{"message":"?","schema":` + form + `}}`, approval.Approved, `{"branch":"main","extra":1}`, "not asked for: extra", ""},
		{`{"question":{"message":"?","schema":` + form + `}}`, approval.Approved, `{"branch":"main","depth":0}`, "/depth does not satisfy minimum", ""},
		{`{"question":{"message":"?","schema":` + form + `}}`, approval.Approved, `{"branch":"main","branch":"main"}`, "no canonical form", ""},
		{`{"question":{"message":"?","schema":{"type":"object"}}}`, approval.Approved, `{"password":"` + strings.Repeat("hunter2", 3) + `"}`, "looks like a secret", ""},
		{`{"question":{"message":"?","schema":` + form + `}}`, approval.Rejected, `{"branch":"main"}`, "not with rejected", ""},
		{`{"question":{"message":"?"}}`, approval.Approved, `{"branch":"main"}`, "asks for none", ""},
		{`{"tool_name":"x"}`, approval.Approved, `{"branch":"main"}`, "asks for none", ""},
	} {
		q := ask(canon.Hash([]byte{byte(i)}), time.Hour)
		q.Request = json.RawMessage(c.request)
		a := request(t, p, r, q)
		got, _, err := approval.Decide(t.Context(), pool, p.Log, a.ApprovalID, owner(r), approval.Decision{State: c.state, Content: json.RawMessage(c.content)})
		if c.problem != "" {
			requireFault(t, err, api.InvalidRequest)
			require.ErrorContains(t, err, c.problem)
			continue
		}
		require.NoError(t, err, c.content)
		require.Equal(t, c.stored, string(got.DecisionContent))
	}
}
