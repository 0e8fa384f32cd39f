// Package runlog appends facts to a run's log, and reads them back, and lets them go.
//
// A log is the ordered events of one run. Its head, one narrow row, holds the
// last seq and hash and whatever guards a change of the run: the lease epoch,
// the frame count and position, the status. A change is a Unit: the appender
// locks the head, lets the unit decide by what the head says, and writes the
// events, the rows that belong to them and the new head in one transaction.
// Units of many runs that wait at the same time share one transaction (group
// commit), so that a busy process pays for few flushes.
//
// Most events are deltas. They have a table of their own and fold, after their
// run's end, into few rows that give each of them back as it was; Retention has
// the sweeps.
package runlog
