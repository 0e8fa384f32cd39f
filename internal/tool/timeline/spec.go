package timeline

import "encoding/json"

var inputSchema = json.RawMessage(`{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object", "additionalProperties": false, "required": ["query"],
  "properties": {
    "query": {"type": "string", "minLength": 1, "maxLength": 200, "description": "Up to 8 words, all of which must occur."},
    "scope": {"enum": ["run", "thread"], "description": "All runs of the conversation, this one among them (default), or this run alone (default with fromSeq)."},
    "types": {
      "type": "array", "minItems": 1, "maxItems": 5, "uniqueItems": true, "description": "Kinds of events; all of these when absent.",
      "items": {"enum": ["frame.appended", "message.finished", "tool.requested", "tool.finished", "run.finished"]}
    },
    "fromSeq": {"type": "integer", "minimum": 1, "description": "With scope run: no event before this one."},
    "limit": {"type": "integer", "minimum": 1, "maximum": 50, "description": "10 when absent."},
    "cursor": {"type": "string", "minLength": 1, "maxLength": 100, "description": "nextCursor of the same search."}
  }
}`)

var outputSchema = json.RawMessage(`{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object", "additionalProperties": false, "required": ["hits", "truncated"],
  "properties": {
    "hits": {
      "type": "array", "maxItems": 50, "description": "Newest first.",
      "items": {
        "type": "object", "additionalProperties": false, "required": ["runId", "seq", "at", "type", "role", "excerpt"],
        "properties": {
          "runId": {"type": "string"}, "seq": {"type": "integer", "minimum": 1}, "at": {"type": "string"}, "type": {"type": "string"},
          "role": {"enum": ["user", "assistant", "tool", "event", "runtime"]},
          "excerpt": {"type": "string", "description": "What is around the first word of the query."}
        }
      }
    },
    "nextCursor": {"type": "string", "description": "Where older events go on; absent at the end."},
    "truncated": {"type": "boolean", "description": "Whether the search stopped because it had looked at as much as one call may."}
  }
}`)
