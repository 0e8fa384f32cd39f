package runlog

// Load is how full the appender's fullest queue is, from 0 to 1. It asks nobody.
func (a *Appender) Load() float64 {
	fullest := 0
	for _, l := range a.lanes {
		fullest = max(fullest, len(l.queue))
	}
	return float64(fullest) / queueUnits
}
