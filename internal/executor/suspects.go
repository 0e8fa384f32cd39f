package executor

import (
	"math"
	"sync"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// suspicious is how many executors a run has lost in a row when it is taken for
// what may have killed them.
const suspicious = 2

// suspects lets a process drive one suspect at a time. A run that kills its
// executor takes those of other runs with it; when these have become suspects
// too they are not at work beside it, so that the losses which end it are its own.
// A suspect that waits has no lease and cannot be lost.
type suspects struct {
	mu   sync.Mutex
	busy uuid.UUID // the suspect at work, zero for none
}

// mostLosses is how many losses a run may have had to be taken now.
func (s *suspects) mostLosses() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy != uuid.Nil {
		return suspicious - 1
	}
	return math.MaxInt64
}

// admit says whether a run may begin.
func (s *suspects) admit(r db.RunListRunnableRow) bool {
	if r.Losses < suspicious {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy != uuid.Nil {
		return false
	}
	s.busy = r.RunKey
	return true
}

// clear notes that a run has made progress or is at work no more, and says
// whether it was the suspect.
func (s *suspects) clear(key uuid.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.busy == key
	if was {
		s.busy = uuid.Nil
	}
	return was
}
