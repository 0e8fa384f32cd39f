package runlog

import (
	"fmt"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
)

// upcast lifts an event of one version to the next, which says the same.
type upcast struct {
	eventType string
	from      int
	lift      func(event.Event) (event.Event, error)
}

// shapes knows every version of every event, and the way to the newest.
type shapes struct {
	latest  func(eventType string) int
	decode  func(eventType string, version int, payload []byte) (event.Event, error)
	upcasts []upcast
}

// today is the contract's shapes. A new version of an event brings its upcast
// from the version before; stored events are never rewritten.
var today = shapes{latest: event.Latest, decode: event.Decode}

// Decode reads a stored payload into its type, in today's shape: a payload of
// an older version is lifted version by version.
func Decode(r db.RunLog) (event.Event, error) {
	e, err := today.read(r.EventType, int(r.EventVersion), r.Payload)
	if err != nil {
		return nil, fmt.Errorf("event %d: %w", r.Seq, err)
	}
	return e, nil
}

func (s shapes) read(eventType string, version int, payload []byte) (event.Event, error) {
	e, err := s.decode(eventType, version, payload)
	for err == nil && version < s.latest(eventType) {
		e, err = s.lift(eventType, version, e)
		version++
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

func (s shapes) lift(eventType string, version int, e event.Event) (event.Event, error) {
	for _, u := range s.upcasts {
		if u.eventType != eventType || u.from != version {
			continue
		}
		next, err := u.lift(e)
		if err != nil {
			return nil, fmt.Errorf("lift %s from version %d: %w", eventType, version, err)
		}
		if next.EventType() != eventType || next.EventVersion() != version+1 {
			return nil, fmt.Errorf("lift %s from version %d: it became %s version %d",
				eventType, version, next.EventType(), next.EventVersion())
		}
		return next, nil
	}
	return nil, fmt.Errorf("no upcast lifts %s from version %d", eventType, version)
}
