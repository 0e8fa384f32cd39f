package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/email"
	"github.com/openagentsinc/openagents-runtime/internal/tool/github"
	"github.com/openagentsinc/openagents-runtime/internal/tool/httpfetch"
)

// toolConfig is what the environment says of the tools that are shipped.
type toolConfig struct {
	EgressAllow []string `env:"RUNTIME_EGRESS_ALLOW" help:"host:port pairs on this machine or in a private network that tools may call, comma separated; for development"`

	HTTPAllow    []string      `env:"RUNTIME_HTTP_ALLOW" help:"the only hosts that http.fetch and http.request reach: names, addresses, *.suffix; empty for every public host"`
	HTTPDeny     []string      `env:"RUNTIME_HTTP_DENY" help:"hosts that they never reach"`
	HTTPMaxBytes int64         `env:"RUNTIME_HTTP_MAX_BYTES" envDefault:"5242880" validate:"min=1,max=104857600" help:"most bytes of a body that they read"`
	HTTPMaxText  int           `env:"RUNTIME_HTTP_MAX_TEXT" envDefault:"131072" validate:"min=1,max=1048576" help:"most bytes of text in their output"`
	HTTPTimeout  time.Duration `env:"RUNTIME_HTTP_TIMEOUT" envDefault:"30s" validate:"min=100ms,max=10m" help:"the longest call of theirs"`

	GitHubURL   string   `env:"RUNTIME_GITHUB_URL" envDefault:"https://api.github.com" validate:"url" help:"where the github tools ask"`
	GitHubRepos []string `env:"RUNTIME_GITHUB_REPOSITORIES" help:"owner/name or owner/* that they reach, comma separated; empty for all that the secret reaches"`
	EmailURL    string   `env:"RUNTIME_EMAIL_URL" envDefault:"https://api.resend.com" validate:"url" help:"where email.send asks"`
	EmailFrom   string   `env:"RUNTIME_EMAIL_FROM" help:"the sender of every mail; email.send is offered when it is set"`
	EmailNever  []string `env:"RUNTIME_EMAIL_SUPPRESSED" help:"addresses and @domains that are never written to, comma separated"`
	EmailOnly   []string `env:"RUNTIME_EMAIL_RECIPIENTS" help:"addresses and @domains that are, and no other; empty for everybody"`
	EmailMost   int      `env:"RUNTIME_EMAIL_MAX_RECIPIENTS" envDefault:"5" validate:"min=1,max=50" help:"most recipients of one mail"`

	Secrets          string `env:"RUNTIME_TOOL_SECRETS" help:"provider=secret pairs for every caller, comma separated, such as github=…" secret:"true"`
	SecretsURL       string `env:"RUNTIME_SECRETS_URL" validate:"omitempty,url" help:"the control plane that gives the secrets of users; empty when there is none"`
	SecretsPath      string `env:"RUNTIME_SECRETS_PATH" envDefault:"/api/internal/runtime/integrations/secrets/fetch" validate:"startswith=/" help:"where it is asked"`
	SecretsAudience  string `env:"RUNTIME_SECRETS_AUDIENCE" envDefault:"openagents-control-plane" validate:"required" help:"the aud claim of what it is asked with"`
	SecretsPlainHTTP bool   `env:"RUNTIME_SECRETS_PLAIN_HTTP" help:"ask it without TLS on another machine"`
}

// toolSecrets is where tools get what proves who they act for.
func (s *service) toolSecrets() (*secret.Store, error) {
	c := s.c
	static, err := secret.ParseStatic(c.Tools.Secrets)
	if err != nil {
		return nil, fmt.Errorf("RUNTIME_TOOL_SECRETS: %w", err)
	}
	keys, err := c.keyring()
	if err != nil {
		return nil, err
	}
	store, err := secret.New(secret.Config{
		Static: static, BaseURL: c.Tools.SecretsURL, Path: c.Tools.SecretsPath, Keys: keys, Audience: c.Tools.SecretsAudience,
		PlainHTTP: c.Tools.SecretsPlainHTTP,
		Register:  s.know,
	})
	if err != nil {
		return nil, fmt.Errorf("RUNTIME_TOOL_SECRETS, RUNTIME_SECRETS_URL: %w", err)
	}
	return store, nil
}

// shippedTools are this program's own tools. The guards of all have the same
// exceptions; each names them in the log.
func (s *service) shippedTools() ([]tool.Tool, error) {
	c := s.c.Tools
	s.refused = egress.CountRefusals(s.metrics)
	guard := func(provider string) egress.GuardConfig {
		return egress.GuardConfig{Exceptions: c.EgressAllow, Refused: s.refused(provider), Logger: s.logger}
	}
	web := guard("http")
	web.Allow, web.Deny, web.MaxBytes, web.Timeout = c.HTTPAllow, c.HTTPDeny, c.HTTPMaxBytes, c.HTTPTimeout
	pages, err := httpfetch.New(httpfetch.Config{Guard: web, MaxText: c.HTTPMaxText})
	if err != nil {
		return nil, fmt.Errorf("RUNTIME_HTTP_, RUNTIME_EGRESS_ALLOW: %w", err)
	}
	code, err := github.New(github.Config{BaseURL: c.GitHubURL, Repositories: c.GitHubRepos, Guard: guard("github"), Secrets: s.secrets})
	if err != nil {
		return nil, fmt.Errorf("RUNTIME_GITHUB_: %w", err)
	}
	tools := append([]tool.Tool{pages.Fetch(), pages.Request()}, code.All()...)
	paid, err := s.paidFetch(guard("l402"))
	if err != nil {
		return nil, err
	}
	if paid != nil {
		tools = append(tools, paid)
	}
	if c.EmailFrom == "" {
		if len(c.EmailNever)+len(c.EmailOnly) > 0 {
			return nil, errors.New("RUNTIME_EMAIL_FROM is not set, but other RUNTIME_EMAIL_ settings are; set it, or none of them")
		}
		return tools, nil
	}
	mail, err := email.New(email.Config{
		BaseURL: c.EmailURL, From: c.EmailFrom, Suppressed: c.EmailNever, Recipients: c.EmailOnly, MaxRecipients: c.EmailMost,
		Guard: guard("email"), Secrets: s.secrets,
	})
	if err != nil {
		return nil, fmt.Errorf("RUNTIME_EMAIL_: %w", err)
	}
	return append(tools, mail), nil
}

// toolNames are the catalog's, for people.
func (s *service) toolNames() (string, error) {
	all, err := s.catalog.For(nil)
	if err != nil {
		return "", err
	}
	var names []string
	for _, spec := range all.Specs() {
		names = append(names, spec.Name)
	}
	return strings.Join(names, ", "), nil
}
