package model

import (
	"context"
	"time"
)

// RecordWaits replaces the sleep before a retry.
func RecordWaits(o *OpenAI, wait func(context.Context, time.Duration) error) { o.wait = wait }

// Sleep is the wait before a retry outside tests.
var Sleep = sleep
