// Package crash ends this process at a named point, in crash-test builds only.
//
// A point is named for the gap between two commits that it stands in. In a
// build with the tag crash, and with RUNTIME_CRASH_AT=name in its environment,
// the process kills itself when it passes the point, with a signal that leaves
// it no last word; name:n waits for the n-th passing. RUNTIME_CRASH_STOP_AT stops
// it there instead, until somebody continues it, and RUNTIME_CRASH_EAT_AT makes it
// eat from there on what memory it may have. RUNTIME_CRASH_CLOCK_OFFSET (such
// as -1h) makes that process's wall clock wrong. It says on stderr when it got no
// processor for a while. Any other build has an empty
// function and the real clock.
package crash
