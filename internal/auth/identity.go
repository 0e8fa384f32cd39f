package auth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// IdentityConfig says whose identity tokens are taken.
type IdentityConfig struct {
	Issuer   string // iss, for Google https://accounts.google.com
	JWKSURL  string // where the issuer publishes its keys
	Audience string // aud, the URL by which this service is called

	// A token's e-mail (verified) or subject must be in one of these lists.
	AllowedEmails   []string
	AllowedSubjects []string
	// AuthorizedParties, when given, must hold the token's azp. Without it a
	// token for several audiences is refused.
	AuthorizedParties []string

	Skew         time.Duration // how far ahead iat and nbf may be; 30 s when zero
	FetchTimeout time.Duration // for the whole key set; 5 s when zero
	RefreshEvery time.Duration // age at which keys are fetched anew; 10 min when zero
	MaxAge       time.Duration // age at which keys that could not be renewed are dropped; 1 h when zero
	MinInterval  time.Duration // shortest time between two fetches, whatever is asked; 10 s when zero

	Client *http.Client     // http.Client without proxy when nil
	Now    func() time.Time // time.Now when nil
}

// IdentityVerifier checks OIDC identity tokens, RS256 or ES256, in
// `Authorization: Bearer`.
type IdentityVerifier struct {
	config IdentityConfig
	keys   *keySet
}

// NewIdentityVerifier checks the configuration. It fetches nothing yet.
func NewIdentityVerifier(c IdentityConfig) (*IdentityVerifier, error) {
	switch u, err := url.Parse(c.JWKSURL); {
	case c.Issuer == "" || c.Audience == "":
		return nil, errors.New("identity tokens: set both the issuer and the audience")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("identity tokens: the key set's address must be an http or https URL")
	case len(c.AllowedEmails)+len(c.AllowedSubjects) == 0:
		return nil, errors.New("identity tokens: allow at least one e-mail or subject, or every account of the issuer could call")
	}
	c.Skew = orDefault(c.Skew, defaultSkew)
	if c.Now == nil {
		c.Now = time.Now
	}
	return &IdentityVerifier{config: c, keys: newKeySet(c)}, nil
}

// Verify returns the e-mail or subject of the allowed caller, or a *Refusal:
// identity_missing, identity_invalid, or identity_unavailable when the keys
// cannot be had.
func (v *IdentityVerifier) Verify(ctx context.Context, h http.Header) (string, error) {
	values := h.Values("Authorization")
	if len(values) == 0 {
		return "", refuse(IdentityMissing, "send the service's identity token as Authorization: Bearer")
	}
	scheme, raw, ok := strings.Cut(values[0], " ")
	if len(values) > 1 || !ok || !strings.EqualFold(scheme, "Bearer") || len(raw) > maxTokenBytes || !visible(raw) {
		return "", refuse(IdentityInvalid, "send one Authorization: Bearer with a compact signed token")
	}
	// go-oidc flattens the key set's error into text, so it is kept here.
	keys := &keySetCall{set: v.keys}
	token, err := oidc.NewVerifier(v.config.Issuer, keys, &oidc.Config{
		ClientID:             v.config.Audience,
		SupportedSigningAlgs: []string{oidc.RS256, oidc.ES256},
		Now:                  v.config.Now,
	}).Verify(ctx, raw)
	if keys.err != nil {
		return "", keys.err
	}
	if err != nil {
		return "", refuse(IdentityInvalid, "the identity token is not acceptable: check issuer, audience, "+
			"expiry, and that it is signed with RS256 or ES256 by a current key of the issuer")
	}
	return v.allowed(token)
}

func (v *IdentityVerifier) allowed(token *oidc.IDToken) (string, error) {
	var c struct {
		Email         string  `json:"email"`
		EmailVerified bool    `json:"email_verified"`
		Party         string  `json:"azp"`
		NotBefore     float64 `json:"nbf"`
	}
	if err := token.Claims(&c); err != nil {
		return "", refuse(IdentityInvalid, "the identity token's email, email_verified, azp or nbf has another type")
	}
	now := v.config.Now()
	if latest := now.Add(v.config.Skew); token.IssuedAt.After(latest) || c.NotBefore > float64(latest.Unix()) {
		return "", refuse(IdentityInvalid, "the identity token is not valid yet: check the clock")
	}
	if !token.Expiry.After(now) {
		return "", refuse(IdentityInvalid, "the identity token has expired")
	}
	parties := v.config.AuthorizedParties
	if len(parties) > 0 && !slices.Contains(parties, c.Party) || len(parties) == 0 && len(token.Audience) > 1 {
		return "", refuse(IdentityInvalid, "the identity token was made for another party: check azp and aud")
	}
	if token.Subject != "" && slices.Contains(v.config.AllowedSubjects, token.Subject) {
		return token.Subject, nil
	}
	if c.EmailVerified && slices.Contains(v.config.AllowedEmails, c.Email) {
		return c.Email, nil
	}
	return "", &Refusal{
		Reason: IdentityInvalid, Forbidden: true,
		Message: "this identity may not call: allow its subject, or its verified e-mail",
	}
}
