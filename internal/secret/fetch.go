package secret

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

// question is what the control plane is asked.
type question struct {
	UserID        int64  `json:"user_id"`
	Provider      string `json:"provider"`
	IntegrationID string `json:"integration_id"`
	RunID         string `json:"run_id"`
	ToolCallID    string `json:"tool_call_id"`
	OrgID         string `json:"org_id,omitempty"`
}

// answer is what it says. Of the scope only what is there must be what was
// asked.
type answer struct {
	Data struct {
		Provider   string `json:"provider"`
		Secret     string `json:"secret"`
		CacheTTLMS *int64 `json:"cache_ttl_ms"`
		Scope      struct {
			UserID        *int64  `json:"user_id"`
			IntegrationID *string `json:"integration_id"`
			RunID         *string `json:"run_id"`
			ToolCallID    *string `json:"tool_call_id"`
		} `json:"scope"`
	} `json:"data"`
}

func (s *Store) fetch(ctx context.Context, scope Scope) (Value, time.Duration, error) {
	body, err := json.Marshal(question{
		UserID: scope.UserID, Provider: scope.Provider, IntegrationID: scope.IntegrationID,
		RunID: scope.RunID, ToolCallID: scope.ToolCallID, OrgID: scope.OrgID,
	})
	if err != nil {
		return Value{}, 0, &Error{Code: InvalidScope, Message: "the scope cannot be written", Err: err}
	}
	token, err := auth.Sign(s.c.Keys, auth.Claims{
		Audience: s.c.Audience, Scope: auth.Service, Actor: s.c.Actor, Method: http.MethodPost, Target: s.target,
		BodySHA256: auth.BodyHash(body), RunID: scope.RunID, UserID: &scope.UserID,
	}, s.c.Now())
	if err != nil {
		return Value{}, 0, &Error{Code: Misconfigured, Message: "the request cannot be signed", Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return Value{}, 0, &Error{Code: Misconfigured, Message: "the request cannot be made", Err: err}
	}
	req.Header.Set(auth.SignatureHeader, token)
	req.Header.Set(auth.UserHeader, strconv.FormatInt(scope.UserID, 10))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return Value{}, 0, &Error{Code: TransportError, Message: "the control plane was not reached", Err: err}
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return Value{}, 0, &Error{Code: NotFound, Message: "there is no secret of " + scope.Provider}
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return Value{}, 0, &Error{Code: Unauthorized, Message: "the control plane does not accept the request"}
	case resp.StatusCode/100 != 2:
		return Value{}, 0, &Error{Code: UpstreamError, Message: "the control plane answered " + strconv.Itoa(resp.StatusCode)}
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 4*maxSecretBytes))
	if err != nil {
		return Value{}, 0, &Error{Code: TransportError, Message: "the control plane's answer broke off", Err: err}
	}
	return s.read(raw, scope)
}

// read takes an answer that is for exactly what was asked. Errors of the decoder
// may repeat what they read, so they are not handed on.
func (s *Store) read(raw []byte, scope Scope) (Value, time.Duration, error) {
	invalid := func(why string) (Value, time.Duration, error) {
		return Value{}, 0, &Error{Code: InvalidResponse, Message: "the control plane's answer " + why, Err: errInvalid}
	}
	var a answer
	if json.Unmarshal(raw, &a) != nil {
		return invalid("is not the JSON that was expected")
	}
	got := a.Data.Scope
	if a.Data.Provider != scope.Provider || differs(got.UserID, scope.UserID) || differs(got.RunID, scope.RunID) ||
		differs(got.IntegrationID, scope.IntegrationID) || differs(got.ToolCallID, scope.ToolCallID) {
		return invalid("is for something else")
	}
	if why := unusable(a.Data.Secret); why != "" {
		return invalid("has a secret that " + why)
	}
	ttl := s.c.TTL
	if ms := a.Data.CacheTTLMS; ms != nil {
		ttl = time.Duration(min(max(*ms, 0), s.c.MaxTTL.Milliseconds())) * time.Millisecond
	}
	return Value{a.Data.Secret}, ttl, nil
}

var errInvalid = errors.New("not usable")

func differs[T comparable](got *T, want T) bool { return got != nil && *got != want }
