// Package executor turns frames into events, for the runs that this process holds.
//
// Every process has one. It finds runs that have something to do and no live
// lease, takes the lease, and drives the run until it waits or ends: it answers
// each accepted frame, in order, with a step, streams what the model says into
// the log, and commits the end of a step together with its receipt and the
// frame position. What it knows of a run it reads from the run's log, so that
// any executor goes on where another stopped.
package executor
