package canon

import (
	"errors"
	"strconv"
	"unicode/utf8"
)

// FirstPrevHash is the prev_hash of a run's first event.
func FirstPrevHash(runID string) Digest { return Sum([]byte(runID)) }

// EventHash is the link of a run's hash chain: the digest of
//
//	{"content_hash":…,"event_type":…,"event_version":…,"prev_hash":…,"run_id":…,"seq":"…"}
//
// in canonical form, where content is the digest of the event's canonical
// payload and prev the event_hash before it. It covers the payload through its
// digest, so a chain still verifies after content was erased.
func EventHash(runID string, seq int64, eventType string, eventVersion int, content, prev Digest) (Digest, error) {
	if !utf8.ValidString(runID) || !utf8.ValidString(eventType) {
		return Digest{}, errors.New("event hash: run_id and event_type are UTF-8")
	}
	if seq < 1 || eventVersion < 1 || int64(eventVersion) > safeInteger {
		return Digest{}, errors.New("event hash: seq and event_version count from 1")
	}
	var room [512]byte
	b := append(room[:0], `{"content_hash":"`...)
	b = content.append(b)
	b = append(b, `","event_type":"`...)
	b = appendEscaped(b, eventType)
	b = append(b, `","event_version":`...)
	b = strconv.AppendInt(b, int64(eventVersion), 10)
	b = append(b, `,"prev_hash":"`...)
	b = prev.append(b)
	b = append(b, `","run_id":"`...)
	b = appendEscaped(b, runID)
	b = append(b, `","seq":"`...)
	b = strconv.AppendInt(b, seq, 10)
	b = append(b, `"}`...)
	return Sum(b), nil
}
