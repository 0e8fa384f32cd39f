package github

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/outbound"
)

const (
	markerStart = "<!-- openagents-runtime:"
	// maxPages bounds how far back a comment is looked for.
	maxPages = 10
)

type commenter struct{ *Tools }

// marker is a line that readers of a comment do not see. It names the call, so
// that the comment is found again when its answer was lost.
func marker(idempotencyKey string) string {
	sum := sha256.Sum256([]byte(idempotencyKey))
	return markerStart + "call " + hex.EncodeToString(sum[:16]) + " -->"
}

// Run comments once. Before a repeated attempt it looks whether an earlier one
// arrived.
func (c commenter) Run(ctx context.Context, call tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
	in, bad := c.read(call.Input)
	if bad != nil {
		return tool.Result{}, bad
	}
	switch {
	case call.IdempotencyKey == "":
		return tool.Result{}, &tool.Error{Class: outbound.InvalidInput, Message: "the call has no idempotency key"}
	case strings.TrimSpace(in.Body) == "":
		return tool.Result{}, &tool.Error{Class: outbound.InvalidInput, Message: "the comment is empty"}
	case strings.Contains(in.Body, markerStart):
		return tool.Result{}, &tool.Error{Class: outbound.InvalidInput, Message: "the comment holds a marker of this service"}
	}
	if call.Attempt > 1 {
		if r, known, err := c.Reconcile(ctx, call); known || err != nil {
			return r, err
		}
	}
	var v gitHubComment
	_, err := c.ask(ctx, call, in, outbound.Ask{
		Method: http.MethodPost, Writes: true,
		Body: map[string]string{"body": in.Body + "\n\n" + marker(call.IdempotencyKey)},
	}, "issues", []string{"comments"}, &v)
	if err != nil {
		return tool.Result{}, err
	}
	return commented(v)
}

func commented(v gitHubComment) (tool.Result, error) {
	if v.ID <= 0 {
		return tool.Result{}, &tool.Error{
			Class: outbound.BadAnswer, ReasonCode: "coding_failed.provider_error", ProviderFault: true, Unknown: true,
			Message: "the provider's answer does not name the comment",
		}
	}
	return result(map[string]any{"commentId": v.ID, "url": v.HTMLURL}, strconv.FormatInt(v.ID, 10))
}

// Reconcile looks for the call's marker among the comments, the newest first.
// Not to find it proves nothing: the request may still be on its way.
func (c commenter) Reconcile(ctx context.Context, call tool.Call) (tool.Result, bool, error) {
	in, bad := c.read(call.Input)
	if bad != nil {
		return tool.Result{}, false, bad
	}
	page := 1
	for seen := 0; seen < maxPages && page > 0; seen++ {
		var list []gitHubComment
		h, err := c.ask(ctx, call, in, outbound.Ask{Method: http.MethodGet, Query: asked(page)}, "issues", []string{"comments"}, &list)
		if err != nil {
			return tool.Result{}, false, err
		}
		for _, v := range list {
			if strings.Contains(v.Body, marker(call.IdempotencyKey)) {
				r, err := commented(v)
				return r, err == nil, err
			}
		}
		// GitHub lists the oldest first and says which page is the last.
		if page == 1 {
			if page = lastPage(h.Values("Link")); page == 1 {
				break
			}
		} else if page--; page == 1 {
			break
		}
	}
	return tool.Result{}, false, nil
}

// lastPage is the page that a Link header calls the last, 1 when it names none.
func lastPage(links []string) int {
	for _, link := range strings.Split(strings.Join(links, ","), ",") {
		address, params, ok := strings.Cut(link, ">")
		if !ok || !strings.Contains(params, `rel="last"`) {
			continue
		}
		u, err := url.Parse(strings.TrimLeft(strings.TrimSpace(address), "<"))
		if err != nil {
			continue
		}
		if n, err := strconv.Atoi(u.Query().Get("page")); err == nil && n > 0 {
			return n
		}
	}
	return 1
}
