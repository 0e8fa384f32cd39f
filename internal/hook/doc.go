// Package hook asks what the embedding program and the configuration have hung into a run.
//
// A hook is asked at a phase and may answer with changes, within a time. What it
// does wrong is told in the run's log and never ends the run.
package hook
