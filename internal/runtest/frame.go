package runtest

import (
	"encoding/json"

	"github.com/openagentsinc/openagents-runtime/internal/run"
)

// UserMessage is a frame with a user's text.
func UserMessage(frameID, text string) run.Frame {
	payload, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		panic(err) // a string always encodes
	}
	return run.Frame{FrameID: frameID, Type: "user_message", Payload: payload}
}
