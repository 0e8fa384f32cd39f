package stream

import "github.com/openagentsinc/openagents-runtime/gen/db"

// Dialect is the parts that a client takes. A later one has all of an earlier
// one's, and may tell an event by another part; the ids are the same in all, so
// a client may go on in another dialect from any cursor.
type Dialect uint8

const (
	// AI5 is what the AI SDK 5, 6 and 7 all accept, strict releases included.
	AI5 Dialect = iota
	// AI6 is what release 6 and later accept, from 6.0.0.
	AI6
	// AI7 is what release 7.0.70 and later accept; it was the first to know
	// reset-step.
	AI7

	dialects
)

var dialectNames = map[string]Dialect{"": AI5, "ai5": AI5, "ai6": AI6, "ai7": AI7}

// DialectNamed is the dialect that a client asks for by name, AI5 if by none.
func DialectNamed(name string) (d Dialect, known bool) {
	d, known = dialectNames[name]
	return d, known
}

// Part is the block of one event: a data line with the part that a client of
// the dialect accepts, then the id line with the event's seq. An event that
// clients do not show gives the id line alone, which moves their cursor. The
// bytes depend on the event and the dialect only. An event that this program
// does not know is an error, because a client that was sent past it would never
// get it.
func Part(row db.RunLog, d Dialect) ([]byte, error) { return appendPart(nil, row, d) }
