package runlog

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// A stretch is consecutive deltas of one part. Its row keeps all that was in
// theirs, so that an event can be given as it was, byte for byte. These bounds
// keep much from being read for the sake of one page; the queries know them too.
const (
	stretchEvents = 256
	stretchBytes  = 64 << 10
)

// stretch gathers consecutive deltas for one row.
type stretch struct {
	row   db.RunLogFoldInsertParams
	id    []byte // the part's, as it stands in the payload
	text  []byte // the deltas', as it stands in the payload
	hash  canon.Digest
	last  time.Time
	alone bool // holds one delta whose payload or hash is not as expected
}

// newStretch begins a stretch with a delta.
func newStretch(runID string, prev canon.Digest, r db.RunLog) stretch {
	s := stretch{row: db.RunLogFoldInsertParams{
		RunKey: r.RunKey, Seq: r.Seq, FirstSeq: r.Seq, EventType: r.EventType, EventVersion: r.EventVersion, Payload: r.Payload,
		PrevHash: prev[:], EventHash: r.EventHash, Traceparent: r.Traceparent, Tracestate: r.Tracestate, RequestID: r.RequestID, InsertedAt: r.InsertedAt,
	}, hash: prev, last: r.InsertedAt}
	text, id, ok := DeltaLiterals(r.Payload)
	s.alone = !ok || !s.chains(runID, r)
	s.add(r, text, id)
	return s
}

// chains says whether a delta's hash is the one that follows from what is kept
// of it.
func (s *stretch) chains(runID string, r db.RunLog) bool {
	if len(r.ContentHash) != len(canon.Digest{}) {
		return false
	}
	hash, err := canon.EventHash(runID, r.Seq, r.EventType, int(r.EventVersion), canon.Digest(r.ContentHash), s.hash)
	return err == nil && bytes.Equal(hash[:], r.EventHash)
}

// take adds a delta if it belongs to the stretch, which its hash says too.
func (s *stretch) take(runID string, r db.RunLog) bool {
	row := &s.row
	if s.alone || r.EventType != row.EventType || r.EventVersion != row.EventVersion ||
		!same(r.Traceparent, row.Traceparent) || !same(r.Tracestate, row.Tracestate) || !same(r.RequestID, row.RequestID) ||
		row.Seq-row.FirstSeq+1 == stretchEvents || r.InsertedAt.Before(s.last) {
		return false
	}
	text, id, ok := DeltaLiterals(r.Payload)
	if !ok || !bytes.Equal(id, s.id) || len(s.text)+len(text) > stretchBytes || !s.chains(runID, r) {
		return false
	}
	s.add(r, text, id)
	return true
}

func (s *stretch) add(r db.RunLog, text, id []byte) {
	s.id, s.text = id, append(s.text, text...)
	s.row.Seq, s.row.EventHash = r.Seq, r.EventHash
	copy(s.hash[:], r.EventHash)
	s.row.Marks = binary.AppendUvarint(s.row.Marks, uint64(len(text)))
	s.row.Marks = binary.AppendUvarint(s.row.Marks, uint64(r.InsertedAt.Sub(s.last).Microseconds()))
	s.row.ContentHashes = append(s.row.ContentHashes, r.ContentHash...)
	s.last = r.InsertedAt
}

// done is the row of the stretch.
func (s *stretch) done() db.RunLogFoldInsertParams {
	if s.row.Seq > s.row.FirstSeq {
		s.row.Payload = deltaPayload(s.text, s.id)
	}
	return s.row
}

func same(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

// appendUnfolded appends the events of a stretch whose seqs are after one and not
// after another, as they were. A row that cannot be taken apart is a *ChainError.
func appendUnfolded(rows []db.RunLog, f db.RunLogFoldListAfterRow, after, until int64) ([]db.RunLog, error) {
	one := db.RunLog{
		RunKey: f.RunKey, Seq: f.FirstSeq, EventType: f.EventType, EventVersion: f.EventVersion, Payload: f.Payload,
		ContentHash: f.ContentHashes, EventHash: f.EventHash, Traceparent: f.Traceparent, Tracestate: f.Tracestate, RequestID: f.RequestID, InsertedAt: f.InsertedAt,
	}
	if f.FirstSeq == f.Seq {
		return append(rows, one), nil
	}
	text, id, ok := DeltaLiterals(f.Payload)
	if !ok {
		return rows, &ChainError{f.FirstSeq, "the fold's payload is no delta"}
	}
	prev, marks := canon.Digest{}, f.Marks
	copy(prev[:], f.PrevHash)
	for seq := f.FirstSeq; seq <= f.Seq; seq++ {
		size, n := binary.Uvarint(marks)
		later, m := binary.Uvarint(marks[max(n, 0):])
		if n <= 0 || m <= 0 || size > uint64(len(text)) {
			return rows, &ChainError{seq, "the fold's marks do not fit its text"}
		}
		content := f.ContentHashes[32*(seq-f.FirstSeq):][:32:32]
		hash, err := canon.EventHash(f.RunID, seq, f.EventType, int(f.EventVersion), canon.Digest(content), prev)
		if err != nil {
			return rows, &ChainError{seq, err.Error()}
		}
		one.Seq, one.InsertedAt = seq, one.InsertedAt.Add(time.Duration(later)*time.Microsecond)
		if seq > after && seq <= until {
			one.Payload, one.ContentHash, one.EventHash = deltaPayload(text[:size], id), content, hash[:]
			if seq == f.Seq {
				one.EventHash = f.EventHash
			}
			rows = append(rows, one)
		}
		prev, marks, text = hash, marks[n+m:], text[size:]
	}
	if len(text) > 0 || len(marks) > 0 {
		return rows, &ChainError{f.Seq, "the fold's marks do not fit its text"}
	}
	return rows, nil
}
