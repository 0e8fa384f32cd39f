package tool

// Running counts the calls that hold a place in a limit.
func (r *Runner) Running(limit, name string) int { return r.limits.count(limit, name) }

// ProgressTimes and ProgressEvery are how often progress is shown.
const (
	ProgressTimes = progressTimes
	ProgressEvery = progressEvery
)
