package pg

import (
	"context"
	"time"
)

// ListenAtPace is Listen with other times for a quiet connection.
func ListenAtPace(ctx context.Context, idle, probe time.Duration, url, channel string, onNotify func(string), onGap func(), lost func(error)) error {
	return listen(ctx, url, channel, pace{idle, probe}, onNotify, onGap, []func(error){lost})
}
