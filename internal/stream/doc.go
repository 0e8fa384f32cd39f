// Package stream turns a run's log into server-sent events.
//
// A stream is the AI SDK's UI message stream. Every event of the log gives one
// block whose last line is its seq as the id, so a client that resumes from an
// id has seen all of that event and nothing after it. The log alone decides
// what a reader gets: wake-ups only say when to look.
//
// A client takes a clean end of the body for the end of the message. So a
// stream ends cleanly after its [DONE] and in no other way: whatever ends it
// earlier breaks the connection.
package stream
