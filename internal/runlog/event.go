package runlog

import (
	"fmt"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// stored is an event as it goes into the log.
type stored struct {
	eventType     string
	version       int
	payload       []byte // canonical, the bytes that are hashed
	content, hash canon.Digest
}

// store makes an event's canonical bytes and chains its hash to the one before.
func store(runID string, seq int64, e event.Event, prev canon.Digest) (stored, error) {
	s := stored{eventType: e.EventType(), version: e.EventVersion()}
	var err error
	if s.payload, err = canon.Marshal(e); err != nil {
		return s, fmt.Errorf("append %s: %w", s.eventType, err)
	}
	s.content = canon.Sum(s.payload)
	if s.hash, err = canon.EventHash(runID, seq, s.eventType, s.version, s.content, prev); err != nil {
		return s, fmt.Errorf("append %s: %w", s.eventType, err)
	}
	return s, nil
}

// First makes the first event of a log, for the statement that creates it.
func First(runID string, e event.Event) (payload, content, hash []byte, err error) {
	s, err := store(runID, 1, e, canon.FirstPrevHash(runID))
	return s.payload, s.content[:], s.hash[:], err
}

// isDelta says whether events of a type are deltas: many, and of use only until
// what they add up to is told whole. They have a table of their own.
func isDelta(eventType string) bool {
	return eventType == event.TypeMessageDelta || eventType == event.TypeReasoningDelta
}
