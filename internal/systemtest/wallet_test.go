package systemtest_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// A process with a wallet offers the tool that pays, answers for its local wallet to who
// has the key, and pays nothing that nobody has allowed.
func TestAProcessWithAWallet(t *testing.T) {
	t.Parallel()
	const key = "0201aabbccddeeff4711"
	var invoice string
	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/free" {
			fmt.Fprint(w, "a free page")
			return
		}
		w.Header().Set("WWW-Authenticate", `L402 macaroon="AAAA", invoice="`+invoice+`"`)
		w.WriteHeader(http.StatusPaymentRequired)
	}))
	t.Cleanup(pages.Close)
	dir := t.TempDir()
	rules := filepath.Join(dir, "policy.json")
	require.NoError(t, os.WriteFile(rules, []byte(`{"format":"openagents.runtime.tool_policy","format_version":1,"require_approval":[]}`), 0o600))
	file := filepath.Join(dir, "wallet.ledger")
	env := []string{"RUNTIME_WALLET=local", "RUNTIME_WALLET_FILE=" + file, "RUNTIME_WALLET_SATS=1234", "RUNTIME_TOOL_SECRETS=lnd=" + key,
		"RUNTIME_TOOL_POLICY=" + rules, "RUNTIME_EGRESS_ALLOW=" + pages.Listener.Addr().String()}
	database := dbtest.URL(t)
	s := serve(t, database, env...)
	addr := s.until(t, `payments come from a local wallet[^}]*"addr":"([^"]+)"`)[1]

	ask := func(method, path, macaroon, body string) string {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Grpc-Metadata-Macaroon", macaroon)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		read, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return string(read)
	}
	require.Contains(t, ask(http.MethodGet, "/v1/balance/channels", key, ""), `"msat":"1234000"`)
	require.Contains(t, ask(http.MethodGet, "/v1/balance/channels", "another", ""), "verification failed")
	issued := ask(http.MethodPost, "/v1/invoices", key, `{"value_msat":"1000"}`)
	_, invoice, _ = strings.Cut(issued, `"payment_request":"`)
	invoice, _, _ = strings.Cut(invoice, `"`)
	require.Contains(t, invoice, "lnbcrt10n")

	runID := uuid.NewString()
	a := call(t, http.MethodPost, s.api, "/runs", map[string]any{"runId": runID, "threadId": runID, "userId": userID,
		"authenticatedSession": true, "keepOpen": true, "toolPolicy": map[string]any{"allow": []string{"l402.fetch"}}})
	require.Equal(t, http.StatusAccepted, a.status, a.body)
	for path, says := range map[string]string{"/free": `"paidSats":0`, "/paid": `"errorClass":"challenge_invalid"`} {
		a := call(t, http.MethodPost, s.api, "/tools/execute?wait=20000", map[string]any{
			"runId": runID, "toolCallId": uuid.NewString(), "tool": "l402.fetch", "input": map[string]any{"url": pages.URL + path, "maxSats": 5}})
		require.Equal(t, http.StatusOK, a.status, a.body)
		require.Contains(t, a.body, says)
	}
	require.NotContains(t, s.out.String(), key)

	other := finish(t, append([]string{
		"DATABASE_URL=" + database, "RUNTIME_SIGNATURE_SECRET=" + secret, "RUNTIME_API_ADDR=127.0.0.1:0", "RUNTIME_OPS_ADDR=127.0.0.1:0",
	}, env...), "", "serve")
	require.Equal(t, 1, other.code)
	require.Contains(t, other.errors, "another process has it open")
}
