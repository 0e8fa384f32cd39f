// Package github reads issues and pull requests, and comments on them.
package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/outbound"
)

// Config is where GitHub is and how much of it may be reached. Zero values take
// the defaults.
type Config struct {
	BaseURL    string // https://api.github.com
	APIVersion string // 2022-11-28
	// Repositories are the only ones that are reached: owner/name or owner/*. An
	// empty list is every one that the secret reaches.
	Repositories []string
	MaxText      int // of an issue's or a comment's text, in bytes; 32 KiB
	Guard        egress.GuardConfig
	Secrets      *secret.Store // of provider github
	Parallel     int           // calls at once of each tool in this process; 0 is without bound
}

const provider = "github"

// Tools are what GitHub offers.
type Tools struct {
	c   Config
	api *outbound.API
}

// New makes the tools or says what cannot be meant.
func New(c Config) (*Tools, error) {
	if c.BaseURL == "" {
		c.BaseURL = "https://api.github.com"
	}
	if c.APIVersion == "" {
		c.APIVersion = "2022-11-28"
	}
	if c.MaxText == 0 {
		c.MaxText = 32 << 10
	}
	if c.MaxText < 0 || c.Parallel < 0 {
		return nil, errors.New("github: a limit is below zero")
	}
	for _, r := range c.Repositories {
		if !repositoryPattern.MatchString(strings.TrimSuffix(r, "*")+"x") || !strings.Contains(r, "/") {
			return nil, fmt.Errorf("github: %q is no repository: write owner/name or owner/*", r)
		}
	}
	api, err := outbound.NewAPI(provider, c.BaseURL, c.Guard, c.Secrets)
	if err != nil {
		return nil, err
	}
	api.Header = http.Header{"Accept": {"application/vnd.github+json"}, "X-Github-Api-Version": {c.APIVersion}}
	api.Reason, api.Says = "coding_failed.provider_error", says
	return &Tools{c: c, api: api}, nil
}

// All are the tools in the order of their names.
func (t *Tools) All() []tool.Tool {
	return []tool.Tool{commenter{t}, reader{t, issue}, reader{t, pullRequest}, reader{t, comments}}
}

// says is GitHub's own words for a refusal.
func says(body []byte) string {
	var v struct {
		Message string `json:"message"`
		Errors  []struct {
			Field   string `json:"field"`
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	// Not every refusal is JSON; those that are not have no words for us.
	_ = json.Unmarshal(body, &v)
	for _, e := range v.Errors {
		v.Message += "; " + strings.TrimSpace(e.Field+" "+e.Code+" "+e.Message)
	}
	return v.Message
}

var repositoryPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}/[A-Za-z0-9._-]{1,100}$`)

// target is what every tool's input names.
type target struct {
	Repository string `json:"repository"`
	Number     int64  `json:"number"`
	Body       string `json:"body"`
	Page       int    `json:"page"`
}

func (t *Tools) read(raw json.RawMessage) (in target, bad *tool.Error) {
	invalid := func(why string) (target, *tool.Error) {
		return in, &tool.Error{Class: outbound.InvalidInput, Message: why}
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return invalid("the input is not as the schema says")
	}
	owner, name, _ := strings.Cut(in.Repository, "/")
	if !repositoryPattern.MatchString(in.Repository) || name == "." || name == ".." || in.Number <= 0 {
		return invalid("repository must be owner/name, and number that of an issue or pull request")
	}
	if len(t.c.Repositories) == 0 {
		return in, nil
	}
	for _, r := range t.c.Repositories {
		if strings.EqualFold(r, in.Repository) || strings.EqualFold(r, owner+"/*") {
			return in, nil
		}
	}
	return in, &tool.Error{
		Class: outbound.Forbidden, ReasonCode: "policy_denied.scope_mismatch", Message: "the repository is not among those configured",
	}
}

// ask asks about one thing of a repository.
func (t *Tools) ask(ctx context.Context, call tool.Call, in target, a outbound.Ask, kind string, rest []string, out any) (http.Header, error) {
	owner, name, _ := strings.Cut(in.Repository, "/")
	a.Path = append([]string{"repos", owner, name, kind, strconv.FormatInt(in.Number, 10)}, rest...)
	h, e := t.api.Do(ctx, call, a, out)
	if e == nil {
		return h, nil
	}
	// GitHub's secondary limits are a 403 in words only; its documentation asks to
	// wait a minute then.
	if e.Class == outbound.Forbidden && strings.Contains(strings.ToLower(e.Message), "rate limit") {
		e.Class, e.Retryable = outbound.RateLimited, true
	}
	if e.Class == outbound.RateLimited && e.RetryAfter == 0 {
		e.RetryAfter = time.Minute
	}
	return h, e
}

// asked is a page of a list.
func asked(page int) url.Values {
	return url.Values{"per_page": {strconv.Itoa(perPage)}, "page": {strconv.Itoa(max(page, 1))}}
}

const perPage = 50
