// Package email sends a message through an HTTP API in the manner of Resend.
package email

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/mail"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/outbound"
)

// Config says who sends and to whom. Zero values take the defaults.
type Config struct {
	BaseURL string // https://api.resend.com
	// From is the sender of every message, an address or Name <address>. A model
	// cannot choose another.
	From string
	// Suppressed are recipients that are never written to: an address, or @domain
	// for all of a domain.
	Suppressed []string
	// Recipients are the only ones that are written to, in the same form. An empty
	// list is everybody.
	Recipients    []string
	MaxRecipients int // of one message; 5
	Guard         egress.GuardConfig
	Secrets       *secret.Store // of provider email
	Parallel      int           // calls at once in this process; 0 is without bound
}

const (
	provider = "email"
	maxText  = 256 << 10
)

// Tool is email.send.
type Tool struct {
	c                   Config
	suppressed, allowed map[string]bool
	api                 *outbound.API
}

// New makes the tool or says what cannot be meant.
func New(c Config) (*Tool, error) {
	if c.BaseURL == "" {
		c.BaseURL = "https://api.resend.com"
	}
	if c.MaxRecipients == 0 {
		c.MaxRecipients = 5
	}
	if c.MaxRecipients < 0 || c.MaxRecipients > 50 || c.Parallel < 0 {
		return nil, errors.New("email: a limit is out of its range")
	}
	if _, err := mail.ParseAddress(c.From); err != nil || strings.ContainsFunc(c.From, unicode.IsControl) {
		return nil, errors.New("email: the sender must be an address or Name <address>")
	}
	t := &Tool{c: c}
	var err error
	if t.suppressed, err = people(c.Suppressed); err != nil {
		return nil, err
	}
	if t.allowed, err = people(c.Recipients); err != nil {
		return nil, err
	}
	if t.api, err = outbound.NewAPI(provider, c.BaseURL, c.Guard, c.Secrets); err != nil {
		return nil, err
	}
	t.api.Reason, t.api.Says = "comms_failed.provider_error", says
	return t, nil
}

// people reads addresses and @domains.
func people(list []string) (map[string]bool, error) {
	m := map[string]bool{}
	for i, p := range list {
		address := p
		if strings.HasPrefix(p, "@") {
			address = "x" + p
		}
		if _, ok := recipient(address); !ok {
			return nil, fmt.Errorf("email: entry %d of a list of recipients is no address and no @domain", i+1)
		}
		m[strings.ToLower(p)] = true
	}
	return m, nil
}

// recipient is an address alone, as it is sent, or not ok.
func recipient(text string) (string, bool) {
	a, err := mail.ParseAddress(text)
	if err != nil || a.Name != "" || a.Address != text || len(text) > 254 || strings.ContainsFunc(text, notMailbox) {
		return "", false
	}
	return a.Address, true
}

// notMailbox are characters that mailboxes of people do not have, and that two
// readers of an address could take for two things.
func notMailbox(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune(`"(),:;<>[\]%!`, r)
}

func in(list map[string]bool, address string) bool {
	address = strings.ToLower(address)
	_, domain, _ := strings.Cut(address, "@")
	return list[address] || list["@"+domain]
}

type input struct {
	To      []string `json:"to"`
	Subject string   `json:"subject"`
	Text    string   `json:"text"`
	HTML    string   `json:"html"`
	ReplyTo string   `json:"replyTo"`
}

type message struct {
	From    string   `json:"from"`
	To      []string `json:"to"`
	Subject string   `json:"subject"`
	Text    string   `json:"text,omitempty"`
	HTML    string   `json:"html,omitempty"`
	ReplyTo string   `json:"reply_to,omitempty"`
}

// Run sends the message. The provider sends what has the same idempotency key
// once.
func (t *Tool) Run(ctx context.Context, call tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
	m, bad := t.message(call)
	if bad != nil {
		return tool.Result{}, bad
	}
	var sent struct {
		ID string `json:"id"`
	}
	_, e := t.api.Do(ctx, call, outbound.Ask{
		Method: http.MethodPost, Path: []string{"emails"}, Body: m, Writes: true,
		Header: http.Header{"Idempotency-Key": {call.IdempotencyKey}},
	}, &sent)
	if e != nil {
		if e.Class == outbound.Conflict && strings.Contains(e.Message, "concurrent_idempotent_requests") {
			// An earlier attempt is still at work there.
			e.Retryable, e.Unknown = true, true
		}
		return tool.Result{}, e
	}
	if sent.ID == "" {
		return tool.Result{}, &tool.Error{
			Class: outbound.BadAnswer, ReasonCode: t.api.Reason, ProviderFault: true, Unknown: true,
			Message: "the provider's answer does not name the message",
		}
	}
	id := outbound.Line(sent.ID, 200)
	out, err := json.Marshal(map[string]any{"messageId": id, "recipients": len(m.To)})
	if err != nil {
		return tool.Result{}, fmt.Errorf("write an output of email: %w", err)
	}
	return tool.Result{Output: out, CorrelationID: id}, nil
}

func (t *Tool) message(call tool.Call) (message, *tool.Error) {
	invalid := func(why string) (message, *tool.Error) {
		return message{}, &tool.Error{Class: outbound.InvalidInput, Message: why}
	}
	var v input
	if err := json.Unmarshal(call.Input, &v); err != nil {
		return invalid("the input is not as the schema says")
	}
	switch {
	case call.IdempotencyKey == "" || len(call.IdempotencyKey) > 256:
		return invalid("the call has no idempotency key that the provider takes")
	case len(v.To) == 0 || len(v.To) > t.c.MaxRecipients:
		return invalid(fmt.Sprintf("a message has 1 to %d recipients", t.c.MaxRecipients))
	case strings.TrimSpace(v.Subject) == "" || strings.ContainsFunc(v.Subject, unicode.IsControl):
		return invalid("the subject is empty or holds control characters")
	case v.Text == "" && v.HTML == "":
		return invalid("the message has neither text nor html")
	case len(v.Text)+len(v.HTML) > maxText:
		return invalid("the message is too long")
	}
	m := message{From: t.c.From, Subject: v.Subject, Text: v.Text, HTML: v.HTML}
	for _, to := range v.To {
		address, ok := recipient(to)
		switch {
		case !ok:
			return invalid("a recipient is no plain address")
		case in(t.suppressed, address):
			return message{}, &tool.Error{
				Class: outbound.Suppressed, ReasonCode: "policy_denied.suppressed_recipient", Message: "a recipient is not to be written to",
			}
		case len(t.allowed) > 0 && !in(t.allowed, address):
			return message{}, &tool.Error{
				Class: outbound.Forbidden, ReasonCode: "policy_denied.scope_mismatch", Message: "a recipient is not among those configured",
			}
		}
		if !slices.ContainsFunc(m.To, func(o string) bool { return strings.EqualFold(o, address) }) {
			m.To = append(m.To, address)
		}
	}
	if v.ReplyTo != "" {
		address, ok := recipient(v.ReplyTo)
		if !ok {
			return invalid("replyTo is no plain address")
		}
		m.ReplyTo = address
	}
	return m, nil
}

// says is the provider's own words for a refusal.
func says(body []byte) string {
	var v struct {
		Name    string `json:"name"`
		Message string `json:"message"`
	}
	// Not every refusal is JSON; those that are not have no words for us.
	_ = json.Unmarshal(body, &v)
	return strings.TrimSpace(v.Name + " " + v.Message)
}

// Spec says what a model and the runner need to know.
func (t *Tool) Spec() tool.Spec {
	timeout := 35 * time.Second
	if d := t.c.Guard.Timeout; d > 0 {
		timeout = d + 5*time.Second
	}
	return tool.Spec{
		Name: "email.send", Title: "Send an e-mail", Kind: tool.Runtime, Provider: provider, Groups: []string{"comms", "write"},
		Description: "Sends one e-mail. A person is asked before each call.",
		Input: json.RawMessage(fmt.Sprintf(`{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object", "additionalProperties": false, "required": ["to", "subject"],
  "anyOf": [{"required": ["text"]}, {"required": ["html"]}],
  "properties": {
    "to": {"type": "array", "minItems": 1, "maxItems": %d, "items": {"type": "string", "maxLength": 254}, "description": "Plain addresses."},
    "subject": {"type": "string", "minLength": 1, "maxLength": 998},
    "text": {"type": "string", "maxLength": %d},
    "html": {"type": "string", "maxLength": %d},
    "replyTo": {"type": "string", "maxLength": 254}
  }
}`, t.c.MaxRecipients, maxText, maxText)),
		Output: json.RawMessage(`{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object", "additionalProperties": false, "required": ["messageId", "recipients"],
  "properties": {
    "messageId": {"type": "string", "description": "The provider's name for the message."},
    "recipients": {"type": "integer", "description": "How many it went to."}
  }
}`),
		Boundary: tool.SafeRetry, Writes: true, NeedsApproval: true, Timeout: timeout, Parallel: t.c.Parallel,
	}
}
