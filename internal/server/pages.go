package server

import (
	"strconv"
	"strings"
	"time"
)

// place is where an entry stands in a list by time, to the microsecond.
type place struct {
	at time.Time
	id string
}

func (p place) token() *string {
	t := strconv.FormatInt(p.at.UnixMicro(), 10) + "." + p.id
	return &t
}

// latestMicros is where the year 10000 begins: moments after it, and before 1970,
// are no places in a list.
const latestMicros = 253402300800_000000

// placeAfter reads a page token of a list by time; nil is the first page.
func placeAfter(token *string) (*place, error) {
	if token == nil {
		return nil, nil
	}
	micros, id, ok := strings.Cut(*token, ".")
	at, err := strconv.ParseInt(micros, 10, 64)
	if !ok || id == "" || err != nil || at < 0 || at >= latestMicros {
		return nil, refuseParameter("query", "pageToken", "must be the nextPageToken of the page before, as it was told")
	}
	return &place{time.UnixMicro(at), id}, nil
}
