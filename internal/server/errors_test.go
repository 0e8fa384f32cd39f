package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

func TestEveryCodeHasItsStatusAndComesBackAsItself(t *testing.T) {
	t.Parallel()
	for _, code := range api.ErrorCodes() {
		r := newRig(t, fails(fmt.Errorf("health: %w", fault.New(code, "the sentence").With("fact", 1).Because(errors.New("the cause")))))
		w := r.do(r.health(t))
		require.Equal(t, code.Status(), w.Code)
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		e := errorOf(t, w)
		require.Equal(t, code, e.Code)
		require.Equal(t, "the sentence", e.Message)
		require.Equal(t, map[string]any{"fact": 1.0}, e.Details)
		require.Equal(t, w.Header().Get("x-request-id"), e.RequestID)
		require.NotContains(t, w.Body.String(), "cause")
		later := code.Status() == http.StatusServiceUnavailable || code.Status() == http.StatusTooManyRequests
		require.Equal(t, later, w.Header().Get("Retry-After") != "", "%s", code)
	}
}

func TestEveryRefusalHasItsStatusAndReason(t *testing.T) {
	t.Parallel()
	for _, reason := range auth.Reasons() {
		for _, forbidden := range []bool{false, true} {
			refusal := &auth.Refusal{Reason: reason, Forbidden: forbidden, Message: "what to change"}
			r := newRig(t, fails(refusal))
			w := r.do(r.health(t))
			require.Equal(t, refusal.Status(), w.Code)
			e := errorOf(t, w)
			require.Equal(t, string(reason), e.Details["reason"])
			require.Equal(t, "what to change", e.Message)
			require.Equal(t, w.Code, e.Code.Status())
		}
	}
}

func TestErrorsWithoutACode(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want api.ErrorCode
	}{
		"too many appends":                {fmt.Errorf("append: %w", runlog.ErrBusy), api.Unavailable},
		"an unknown outcome":              {fmt.Errorf("append: %w", runlog.ErrUnknown), api.Unavailable},
		"too many readers":                {stream.ErrTooManyReaders, api.Unavailable},
		"too slow":                        {fmt.Errorf("get run: %w", context.DeadlineExceeded), api.Unavailable},
		"a database that is full":         {&pgconn.PgError{Code: "53300"}, api.Unavailable},
		"a database that stops":           {&pgconn.PgError{Code: "57P01"}, api.Unavailable},
		"a lost serialization":            {&pgconn.PgError{Code: "40001"}, api.Unavailable},
		"a statement that is wrong":       {&pgconn.PgError{Code: "42P01"}, api.Internal},
		"a value that is wrong":           {&pgconn.PgError{Code: "22021"}, api.Internal},
		"a fault without a code":          {&fault.Error{Message: "the secret"}, api.Internal},
		"anything else":                   {errors.New("the secret"), api.Internal},
		"canceled, but not by the client": {context.Canceled, api.Internal},
	} {
		r := newRig(t, fails(c.err))
		w := r.do(r.health(t))
		e := errorOf(t, w)
		require.Equal(t, c.want, e.Code, name)
		require.NotContains(t, w.Body.String(), "secret")
		require.Equal(t, c.want == api.Internal, w.Code == http.StatusInternalServerError)
		require.NotNil(t, e.Details)
	}
}
