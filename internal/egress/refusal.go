package egress

import (
	"context"
	"errors"
	"log/slog"
	"net/url"

	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// The reason codes of refusals, as in the taxonomy of reasons.
const (
	PrivateAddress          = "ssrf_block.private_address"
	MetadataEndpoint        = "ssrf_block.metadata_endpoint"
	HostNotAllowed          = "ssrf_block.host_not_allowed"
	InvalidURL              = "ssrf_block.invalid_url"
	DNSResolutionFailed     = "ssrf_block.dns_resolution_failed"
	DNSPinMismatch          = "ssrf_block.dns_pin_mismatch"
	RedirectLimitExceeded   = "ssrf_block.redirect_limit_exceeded"
	RedirectMissingLocation = "ssrf_block.redirect_missing_location"
	RedirectInvalidLocation = "ssrf_block.redirect_invalid_location"
)

// Refusal says that a call was not made, or not followed further.
type Refusal struct {
	ReasonCode string
	Host       string // "" when the URL names none
	URL        string // without user, query and fragment
	Message    string // holds no secret
	// Hops is how many requests were sent, and answered with a redirect.
	Hops int
	// Err is the cause, if there is one, such as the resolver's error.
	Err error
}

func (r *Refusal) Error() string { return r.ReasonCode + ": " + r.Message }
func (r *Refusal) Unwrap() error { return r.Err }

// Details is the refusal for a log or an event.
func (r *Refusal) Details() map[string]string {
	return map[string]string{"reason_code": r.ReasonCode, "host": r.Host, "url": r.URL}
}

// LogValue keeps queries and users out of log lines.
func (r *Refusal) LogValue() slog.Value {
	return slog.GroupValue(slog.String("reason_code", r.ReasonCode), slog.String("host", r.Host),
		slog.String("url", r.URL), slog.String("message", r.Message))
}

// The classes of a Failure.
const (
	FailedTimeout     = "timeout"
	FailedCanceled    = "canceled"
	FailedUnreachable = "unreachable"       // no connection was made
	FailedTLS         = "tls_failed"        // the server could not prove who it is
	FailedSlow        = "too_slow"          // the body came slower than is borne
	FailedIncomplete  = "answer_incomplete" // the body ended early
	FailedAnswer      = "answer_invalid"    // not HTTP, headers too large, broken compression
)

// Failure says that a call that was allowed gave no answer.
type Failure struct {
	Class   string
	Host    string
	URL     string // without user, query and fragment
	Message string // holds no secret
	// Sent says that the request may have reached the server.
	Sent bool
	Err  error
}

func (f *Failure) Error() string { return f.Class + ": " + f.Message }
func (f *Failure) Unwrap() error { return f.Err }

var errTooSlow = errors.New("the body comes too slowly")

// shown is a URL as it may be shown to anybody.
func shown(u *url.URL) string {
	c := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	s := c.String()
	if len(s) > 512 {
		s = s[:512]
	}
	return s
}

// CountRefusals registers the counter of refusals and returns what counts one,
// for GuardConfig.Refused. provider is a word of the configuration.
func CountRefusals(m *telemetry.Metrics) func(provider string) func(context.Context, *Refusal) {
	c := m.Counter(telemetry.EgressRefusals)
	return func(provider string) func(context.Context, *Refusal) {
		return func(_ context.Context, r *Refusal) { c.WithLabelValues(provider, r.ReasonCode).Inc() }
	}
}
