package runlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
)

// Whatever was stored once is read for ever, in today's shape. A version that
// has no fixture, or from which no upcast leads on, fails here.
func TestEveryStoredVersionHasTodaysShape(t *testing.T) {
	t.Parallel()
	for _, eventType := range event.Types() {
		for version := 1; version <= event.Latest(eventType); version++ {
			name := fmt.Sprintf("../../openapi/fixtures/events/%s.v%d.json", eventType, version)
			payload, err := os.ReadFile(name)
			require.NoError(t, err, "keep one stored payload of every version")
			e, err := Decode(db.RunLog{Seq: 1, EventType: eventType, EventVersion: int32(version), Payload: payload})
			require.NoError(t, err, name)
			require.Equal(t, eventType, e.EventType(), name)
			require.Equal(t, event.Latest(eventType), e.EventVersion(), name)
		}
	}
}

// Three versions of an event that no contract has.
type (
	doneV1 struct{ Name string }
	doneV2 struct{ First, Last string }
	doneV3 struct {
		First, Last string
		Length      int
	}
)

func (doneV1) EventType() string { return "test.done" }
func (doneV1) EventVersion() int { return 1 }
func (doneV2) EventType() string { return "test.done" }
func (doneV2) EventVersion() int { return 2 }
func (doneV3) EventType() string { return "test.done" }
func (doneV3) EventVersion() int { return 3 }

func into[E event.Event](payload []byte) (event.Event, error) {
	var e E
	err := json.Unmarshal(payload, &e)
	return e, err
}

func synthetic(upcasts ...upcast) shapes {
	return shapes{
		latest: func(string) int { return 3 },
		decode: func(_ string, version int, payload []byte) (event.Event, error) {
			switch version {
			case 1:
				return into[doneV1](payload)
			case 2:
				return into[doneV2](payload)
			case 3:
				return into[doneV3](payload)
			}
			return nil, event.ErrUnknown
		},
		upcasts: upcasts,
	}
}

var (
	oneToTwo = upcast{"test.done", 1, func(e event.Event) (event.Event, error) {
		return doneV2{First: e.(doneV1).Name, Last: "?"}, nil
	}}
	twoToThree = upcast{"test.done", 2, func(e event.Event) (event.Event, error) {
		old := e.(doneV2)
		return doneV3{old.First, old.Last, len(old.First) + len(old.Last)}, nil
	}}
)

func TestAnOldEventIsLiftedStepByStep(t *testing.T) {
	t.Parallel()
	s := synthetic(twoToThree, oneToTwo)
	for version, stored := range map[int]string{
		1: `{"Name":"Ann"}`, 2: `{"First":"Ann","Last":"?"}`, 3: `{"First":"Ann","Last":"?","Length":4}`,
	} {
		e, err := s.read("test.done", version, []byte(stored))
		require.NoError(t, err)
		require.Equal(t, doneV3{"Ann", "?", 4}, e)
	}
}

func TestAnEventThatCannotBeLiftedIsAnError(t *testing.T) {
	t.Parallel()
	failing := errors.New("as asked")
	for name, c := range map[string]struct {
		s    shapes
		says string
	}{
		"no upcast of its version": {synthetic(oneToTwo), "no upcast lifts test.done from version 2"},
		"the upcast fails": {synthetic(twoToThree, upcast{"test.done", 1,
			func(event.Event) (event.Event, error) { return nil, failing }}), "from version 1: as asked"},
		"the upcast leads astray": {synthetic(twoToThree, upcast{"test.done", 1,
			func(e event.Event) (event.Event, error) { return e, nil }}), "it became test.done version 1"},
	} {
		_, err := c.s.read("test.done", 1, []byte(`{"Name":"Ann"}`))
		require.ErrorContains(t, err, c.says, name)
	}
	_, err := synthetic().read("test.done", 4, nil)
	require.ErrorIs(t, err, event.ErrUnknown, "an event of a newer release is not guessed at")
}
