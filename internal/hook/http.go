package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

// Setting is a hook of the configuration: Ask is sent to a URL.
type Setting struct {
	ID       string `json:"id"`
	Phase    Phase  `json:"phase"`
	URL      string `json:"url"`
	Priority int64  `json:"priority"`
	// Timeout is a Go duration such as 500ms; empty is DefaultTimeout.
	Timeout string `json:"timeout"`
}

// Load reads the hooks of a file {"hooks": [Setting, …]}; an empty path has none.
func Load(path string, client *http.Client) ([]Hook, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the hooks: %w", err)
	}
	var file struct {
		Hooks []Setting `json:"hooks"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, fmt.Errorf("read the hooks of %s: %w", path, err)
	}
	var hooks []Hook
	for _, s := range file.Hooks {
		h, err := HTTP(s, client)
		if err != nil {
			return nil, fmt.Errorf("read the hooks of %s: %w", path, err)
		}
		hooks = append(hooks, h)
	}
	return hooks, nil
}

// HTTP makes a hook that posts its Event as JSON to a URL. 200 answers with a
// Result as JSON, 204 with none; everything else is a failure.
func HTTP(s Setting, client *http.Client) (Hook, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return Hook{}, fmt.Errorf("hook %s: its url is an http or https URL without a user", s.ID)
	}
	h := Hook{ID: s.ID, Phase: s.Phase, Priority: s.Priority}
	if s.Timeout != "" {
		if h.Timeout, err = time.ParseDuration(s.Timeout); err != nil {
			return Hook{}, fmt.Errorf("hook %s: its timeout: %w", s.ID, err)
		}
	}
	h.Handle = func(ctx context.Context, e Event) (Result, error) { return post(ctx, client, u.String(), e) }
	return h, h.validate()
}

func post(ctx context.Context, client *http.Client, to string, e Event) (Result, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		// The error's own text has the URL, which is not for a run's log.
		var told *url.Error
		if errors.As(err, &told) {
			err = told.Err
		}
		return nil, fmt.Errorf("the hook was not reached: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // what was read is all that is wanted
	switch res.StatusCode {
	case http.StatusNoContent:
		return nil, nil
	case http.StatusOK:
	default:
		return nil, fmt.Errorf("the hook answered %d", res.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, 4*MaxText+1))
	if err != nil {
		return nil, fmt.Errorf("the hook's answer broke off: %w", err)
	}
	if len(raw) > 4*MaxText {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", errInvalid, 4*MaxText)
	}
	var answer Result
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, fmt.Errorf("%w: it is no JSON object", errInvalid)
	}
	return answer, nil
}
