// Package run is a run's life: start, frames, cancel, finish.
package run
