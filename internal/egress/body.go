package egress

import (
	"context"
	"io"
	"sync/atomic"
	"time"
)

// readBody reads at most limit bytes. When a window passes with less than least
// bytes it calls stop, which must make the read fail.
func readBody(r io.Reader, limit, least int64, window time.Duration, stop context.CancelCauseFunc) (body []byte, truncated bool, err error) {
	p := &progress{r: io.LimitReader(r, limit+1)}
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(window)
		defer tick.Stop()
		for before := int64(0); ; {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			now := p.n.Load()
			if now-before < least {
				stop(errTooSlow)
				return
			}
			before = now
		}
	}()
	body, err = io.ReadAll(p)
	close(done)
	<-watched
	if int64(len(body)) > limit {
		// There was more than is wanted, so what became of the rest does not matter.
		return body[:limit], true, nil
	}
	return body, false, err
}

// progress counts what is read.
type progress struct {
	r io.Reader
	n atomic.Int64
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n.Add(int64(n))
	return n, err
}
