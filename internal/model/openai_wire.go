package model

import (
	"encoding/json"
	"strings"

	"github.com/openai/openai-go/v3"
)

func finish(s string) FinishReason {
	switch s {
	case "stop":
		return FinishStop
	case "length":
		return FinishLength
	case "tool_calls", "function_call":
		return FinishToolCalls
	case "content_filter":
		return FinishContentFilter
	case "error":
		return FinishError
	default:
		return FinishOther
	}
}

// reasoning reads what the protocol has no field for: OpenRouter says
// "reasoning", llama.cpp and DeepSeek "reasoning_content".
func reasoning(d openai.ChatCompletionChunkChoiceDelta) string {
	for _, name := range []string{"reasoning", "reasoning_content"} {
		f, ok := d.JSON.ExtraFields[name]
		if !ok {
			continue
		}
		var s string
		if json.Unmarshal([]byte(f.Raw()), &s) == nil && s != "" {
			return s
		}
	}
	return ""
}

func usage(u openai.CompletionUsage) Usage {
	out := Usage{Told: true, InputTokens: u.PromptTokens, OutputTokens: u.CompletionTokens, TotalTokens: u.TotalTokens}
	if out.TotalTokens == 0 {
		out.TotalTokens = out.InputTokens + out.OutputTokens
	}
	if u.CompletionTokensDetails.JSON.ReasoningTokens.Valid() {
		n := u.CompletionTokensDetails.ReasoningTokens
		out.ReasoningTokens = &n
	}
	if u.PromptTokensDetails.JSON.CachedTokens.Valid() {
		n := u.PromptTokensDetails.CachedTokens
		out.CachedTokens = &n
	}
	return out
}

// clip keeps an endpoint's own names short and printable.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), 200)]
}
