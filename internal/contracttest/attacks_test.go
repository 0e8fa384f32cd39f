package contracttest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
)

// siege is a world under one kind of attack. Whatever is tried, nothing may
// change in the database and no secret may get into the log.
type siege struct {
	*world
	id     string
	before string
	tokens []string
}

func besiege(t *testing.T, id string, o contracttest.Options) *siege {
	t.Helper()
	s := &siege{world: newWorld(t, o), id: id}
	s.before = s.state(t)
	t.Cleanup(func() {
		require.Equal(t, s.before, s.state(t), "an attack has changed something")
		lines := s.Log.String()
		for _, secret := range append(s.tokens, contracttest.Secret) {
			require.NotContains(t, lines, secret, "a secret is in the log")
		}
	})
	return s
}

// state is what an attack must not change.
func (s *siege) state(t *testing.T) string {
	t.Helper()
	var state string
	require.NoError(t, s.Pool.QueryRow(context.WithoutCancel(t.Context()), `
		SELECT concat_ws(' ', (SELECT count(*) FROM runs), (SELECT count(*) FROM frames), (SELECT count(*) FROM run_log),
		  (SELECT md5(string_agg(h::text, ' ' ORDER BY run_key)) FROM run_heads h), (SELECT md5(string_agg(r::text, ' ' ORDER BY run_key)) FROM runs r),
		  (SELECT count(*) FROM spend_ledger_entries), (SELECT md5(string_agg(a::text, ' ' ORDER BY authorization_id)) FROM spend_authorizations a),
		  (SELECT md5(string_agg(r::text, ' ' ORDER BY run_key, tool_call_id)) FROM spend_reservations r))`,
	).Scan(&state))
	return state
}

// note writes a line of the table that `make attacks` prints.
func (s *siege) note(t *testing.T, attack, outcome string) {
	t.Helper()
	t.Logf("attack\t%s\t%s\t%s\t%s", s.id, attack, outcome, t.Name())
}

// refuse sends a request that must be answered with a code, and a reason where
// the code has some.
func (s *siege) refuse(t *testing.T, attack string, q contracttest.Request, code, reason string) contracttest.Answer {
	t.Helper()
	if q.Token != contracttest.NoToken && len(q.Token) > 20 {
		s.tokens = append(s.tokens, q.Token)
	}
	a := s.Do(t, q)
	require.Equal(t, code, a.Code(), "%s: answered %d %s", attack, a.Status, a.Body)
	require.Equal(t, reason, a.Reason(), "%s: answered %d %s", attack, a.Status, a.Body)
	s.note(t, attack, strings.TrimSpace(fmt.Sprintf("%d %s %s", a.Status, code, reason)))
	return a
}

// raw sends bytes as they are and returns the first answer and the connection.
func (s *siege) raw(t *testing.T, text string) (*http.Response, *rawConn) {
	t.Helper()
	c := s.dial(t)
	c.send(t, text)
	return c.answer(t), c
}

type rawConn struct {
	net.Conn
	read *bufio.Reader
}

func (s *siege) dial(t *testing.T) *rawConn {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", s.Address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() }) // closed already, mostly
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return &rawConn{c, bufio.NewReader(c)}
}

func (c *rawConn) send(t *testing.T, text string) {
	t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
}

// answer reads one answer with its body.
func (c *rawConn) answer(t *testing.T) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(c.read, nil)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body = io.NopCloser(strings.NewReader(string(body)))
	return resp
}

// closed waits for the server to close the connection and returns what came
// before.
func (c *rawConn) closed(t *testing.T) string {
	t.Helper()
	rest, err := io.ReadAll(c.read)
	if err != nil {
		require.ErrorContains(t, err, "reset")
	}
	return string(rest)
}

// head is a request's first lines as they go over the wire, without the end.
func (s *siege) head(t *testing.T, q contracttest.Request) string {
	t.Helper()
	var b strings.Builder
	method := q.Method
	if method == "" {
		method = "GET"
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, q.Target, s.Address)
	require.NoError(t, s.Headers(t, q).Write(&b))
	return b.String()
}
