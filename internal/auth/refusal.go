package auth

import "net/http"

// Reason says why a caller was refused, in few enough words to count by.
type Reason string

const (
	MissingToken        Reason = "missing_token"
	MalformedToken      Reason = "malformed_token"
	InvalidSignature    Reason = "invalid_signature"
	InvalidClaims       Reason = "invalid_claims"
	TokenExpired        Reason = "token_expired"
	TokenNotYetValid    Reason = "token_not_yet_valid"
	TokenLifetime       Reason = "token_lifetime"
	RequestMismatch     Reason = "request_mismatch"
	AudienceMismatch    Reason = "audience_mismatch"
	NonceReplayed       Reason = "nonce_replayed"
	IdentityMissing     Reason = "identity_missing"
	IdentityInvalid     Reason = "identity_invalid"
	IdentityUnavailable Reason = "identity_unavailable"
	ScopeInsufficient   Reason = "scope_insufficient"
	ClaimMismatch       Reason = "claim_mismatch"
	InvalidPrincipal    Reason = "invalid_principal"
)

// Reasons are all of them, for metrics and for tests of the error table.
func Reasons() []Reason {
	return []Reason{
		MissingToken, MalformedToken, InvalidSignature, InvalidClaims, TokenExpired, TokenNotYetValid,
		TokenLifetime, RequestMismatch, AudienceMismatch, NonceReplayed, IdentityMissing, IdentityInvalid,
		IdentityUnavailable, ScopeInsufficient, ClaimMismatch, InvalidPrincipal,
	}
}

// Refusal is the error of a caller who is not let in. Message tells what to
// change and holds neither secret nor anything that the token or request said.
type Refusal struct {
	Reason    Reason
	Forbidden bool // the caller is known, and may not do this
	Message   string
}

func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Message }

// Status is 403 for Forbidden, 503 when identities cannot be checked at the
// moment, else 401.
func (r *Refusal) Status() int {
	switch {
	case r.Reason == IdentityUnavailable:
		return http.StatusServiceUnavailable
	case r.Forbidden:
		return http.StatusForbidden
	default:
		return http.StatusUnauthorized
	}
}

func refuse(reason Reason, message string) *Refusal {
	return &Refusal{Reason: reason, Message: message}
}

func forbid(reason Reason, message string) *Refusal {
	return &Refusal{Reason: reason, Forbidden: true, Message: message}
}
