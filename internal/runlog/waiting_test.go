package runlog

import "github.com/google/uuid"

// Waiting is how many units wait in the lane of a run.
func (a *Appender) Waiting(key uuid.UUID) int { return a.laneOf(key).waiting() }
