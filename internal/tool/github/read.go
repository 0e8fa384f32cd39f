package github

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/outbound"
)

// what a reader reads.
type what int

const (
	issue what = iota
	pullRequest
	comments
)

type reader struct {
	*Tools
	what what
}

// The parts of GitHub's answers that are handed on.
type (
	user struct {
		Login string `json:"login"`
	}
	gitHubIssue struct {
		Number      int64                   `json:"number"`
		Title       string                  `json:"title"`
		State       string                  `json:"state"`
		StateReason string                  `json:"state_reason"`
		User        *user                   `json:"user"`
		Labels      []struct{ Name string } `json:"labels"`
		Assignees   []user                  `json:"assignees"`
		Body        string                  `json:"body"`
		Comments    int64                   `json:"comments"`
		CreatedAt   string                  `json:"created_at"`
		UpdatedAt   string                  `json:"updated_at"`
		ClosedAt    string                  `json:"closed_at"`
		HTMLURL     string                  `json:"html_url"`
		PullRequest *struct{}               `json:"pull_request"`
	}
	branch struct {
		Ref  string `json:"ref"`
		SHA  string `json:"sha"`
		Repo *struct {
			FullName string `json:"full_name"`
		} `json:"repo"`
	}
	gitHubPull struct {
		gitHubIssue
		Draft        bool   `json:"draft"`
		Merged       bool   `json:"merged"`
		Mergeable    *bool  `json:"mergeable"`
		MergedAt     string `json:"merged_at"`
		Head         branch `json:"head"`
		Base         branch `json:"base"`
		Commits      int64  `json:"commits"`
		Additions    int64  `json:"additions"`
		Deletions    int64  `json:"deletions"`
		ChangedFiles int64  `json:"changed_files"`
	}
	gitHubComment struct {
		ID        int64  `json:"id"`
		User      *user  `json:"user"`
		Body      string `json:"body"`
		CreatedAt string `json:"created_at"`
		HTMLURL   string `json:"html_url"`
	}
)

// Run asks GitHub once.
func (r reader) Run(ctx context.Context, call tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
	in, bad := r.read(call.Input)
	if bad != nil {
		return tool.Result{}, bad
	}
	ask := outbound.Ask{Method: http.MethodGet}
	var out map[string]any
	var h http.Header
	var err error
	switch r.what {
	case issue:
		var v gitHubIssue
		h, err = r.ask(ctx, call, in, ask, "issues", nil, &v)
		out = r.issue(v)
	case pullRequest:
		var v gitHubPull
		h, err = r.ask(ctx, call, in, ask, "pulls", nil, &v)
		out = r.pull(v)
	case comments:
		var v []gitHubComment
		ask.Query = asked(in.Page)
		h, err = r.ask(ctx, call, in, ask, "issues", []string{"comments"}, &v)
		out = r.comments(v)
	}
	if err != nil {
		return tool.Result{}, err
	}
	return result(out, h.Get("X-Github-Request-Id"))
}

func result(out map[string]any, correlation string) (tool.Result, error) {
	raw, err := json.Marshal(out)
	if err != nil {
		return tool.Result{}, fmt.Errorf("write an output of github: %w", err)
	}
	return tool.Result{Output: raw, CorrelationID: outbound.Line(correlation, 200)}, nil
}

func (t *Tools) issue(v gitHubIssue) map[string]any {
	labels, assignees := []string{}, []string{}
	for _, l := range v.Labels {
		labels = append(labels, l.Name)
	}
	for _, a := range v.Assignees {
		assignees = append(assignees, a.Login)
	}
	body := outbound.Cut(v.Body, t.c.MaxText)
	return map[string]any{
		"number": v.Number, "title": v.Title, "state": v.State, "stateReason": v.StateReason, "author": login(v.User),
		"labels": labels, "assignees": assignees, "body": body, "truncated": len(body) < len(v.Body), "comments": v.Comments,
		"createdAt": v.CreatedAt, "updatedAt": v.UpdatedAt, "closedAt": v.ClosedAt, "url": v.HTMLURL,
		"isPullRequest": v.PullRequest != nil,
	}
}

func (t *Tools) pull(v gitHubPull) map[string]any {
	out := t.issue(v.gitHubIssue)
	out["isPullRequest"] = true
	for name, value := range map[string]any{
		"draft": v.Draft, "merged": v.Merged, "mergeable": v.Mergeable, "mergedAt": v.MergedAt,
		"head": v.Head.out(), "base": v.Base.out(), "commits": v.Commits,
		"additions": v.Additions, "deletions": v.Deletions, "changedFiles": v.ChangedFiles,
	} {
		out[name] = value
	}
	return out
}

func (b branch) out() map[string]any {
	repository := "" // a fork that was deleted
	if b.Repo != nil {
		repository = b.Repo.FullName
	}
	return map[string]any{"ref": b.Ref, "sha": b.SHA, "repository": repository}
}

// comments shares the text's bound out, so that one page fits an output.
func (t *Tools) comments(list []gitHubComment) map[string]any {
	out := []map[string]any{}
	left, truncated := 4*t.c.MaxText, false
	for _, c := range list {
		body := outbound.Cut(c.Body, min(t.c.MaxText, left))
		left -= len(body)
		truncated = truncated || len(body) < len(c.Body)
		out = append(out, map[string]any{
			"id": c.ID, "author": login(c.User), "body": body, "createdAt": c.CreatedAt, "url": c.HTMLURL,
		})
	}
	return map[string]any{"comments": out, "truncated": truncated, "more": len(list) == perPage}
}

// login is "ghost", as GitHub shows it, for an account that is gone.
func login(u *user) string {
	if u == nil {
		return "ghost"
	}
	return u.Login
}
