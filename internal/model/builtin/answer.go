package builtin

import (
	"fmt"
	"strings"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

// reply is a text or a tool call.
type reply struct {
	text string
	call *model.ToolCall
}

func (r reply) events(maxTokens int) ([]model.Event, model.FinishReason) {
	if r.call != nil {
		return []model.Event{{Kind: model.CallsTool, ToolCall: r.call}}, model.FinishToolCalls
	}
	text, finish := r.text, model.FinishStop
	if maxTokens > 0 && Tokens(text) > int64(maxTokens) {
		text, finish = truncate(text, maxTokens), model.FinishLength
	}
	var out []model.Event
	for _, d := range split(text) {
		out = append(out, model.Event{Kind: model.TextDelta, Delta: d})
	}
	return out, finish
}

// thread is a conversation, as the rules look at it.
type thread struct {
	messages []model.Message
	// ask is the latest user message, and earlier what came before it.
	ask     string
	earlier []model.Message
	// results are the tool messages that came after it.
	results []result
}

type result struct{ tool, content string }

func read(messages []model.Message) thread {
	t := thread{messages: messages}
	last := -1
	for i, m := range messages {
		if m.Role == model.RoleUser {
			last = i
		}
	}
	names := map[string]string{}
	for i, m := range messages {
		for _, c := range m.ToolCalls {
			names[c.ID] = c.Name
		}
		if m.Role == model.RoleTool && i > last {
			t.results = append(t.results, result{names[m.ToolCallID], m.Content})
		}
	}
	if last >= 0 {
		t.ask, t.earlier = strings.TrimSpace(messages[last].Content), messages[:last]
	}
	return t
}

// said gives the earlier messages of a role, oldest first.
func (t thread) said(role model.Role) []string {
	var out []string
	for _, m := range t.earlier {
		if m.Role == role && strings.TrimSpace(m.Content) != "" {
			out = append(out, strings.TrimSpace(m.Content))
		}
	}
	return out
}

// answer tries the rules in order; the first that applies answers.
func answer(req model.Request) (reply, *model.Error) {
	t := read(req.Messages)
	if len(req.Schema) > 0 {
		text, err := t.fill(req.Schema)
		if err != nil {
			return reply{}, &model.Error{Class: model.InvalidRequest, Message: "the output schema cannot be read: " + err.Error()}
		}
		return reply{text: text}, nil
	}
	switch call, err := t.nextStep(req.Tools); {
	case err != nil:
		return reply{}, &model.Error{Class: model.InvalidRequest, Message: err.Error()}
	case call != nil:
		return reply{call: call}, nil
	}
	if len(t.results) > 0 {
		return reply{text: t.fromResults()}, nil
	}
	if t.ask == "" {
		return reply{text: "I was asked nothing. " + abilities}, nil
	}
	if text, ok := t.recall(); ok {
		return reply{text: text}, nil
	}
	call, missing, err := t.pick(req.Tools)
	switch {
	case err != nil:
		return reply{}, &model.Error{Class: model.InvalidRequest, Message: err.Error()}
	case call != nil:
		return reply{call: call}, nil
	case missing != "":
		return reply{text: missing}, nil
	}
	return reply{text: t.talk()}, nil
}

// talk answers in words.
func (t thread) talk() string {
	for _, rule := range []func() (string, bool){
		t.editing,
		func() (string, bool) { return arithmetic(t.ask, t.lastNumber()) },
		t.social,
		t.digest,
		t.quoting,
		t.noting,
	} {
		if text, ok := rule(); ok {
			return text
		}
	}
	return fmt.Sprintf("I am a rule-based model, and nothing in this thread answers %s. %s", quote(t.ask), abilities)
}

const abilities = "I can quote what was said or given here, do arithmetic, pick a tool, fill a JSON Schema, summarise, list, count, and change the case or order of text."

// quote shows a text in quotation marks, shortened when it is long.
func quote(s string) string {
	s = spaces.ReplaceAllString(strings.TrimSpace(s), " ")
	if r := []rune(s); len(r) > 400 {
		s = string(r[:400]) + "…"
	}
	return "“" + s + "”"
}
