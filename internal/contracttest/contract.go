package contracttest

import "testing"

// Contract is the bundled contract.
func Contract(t testing.TB) Document {
	t.Helper()
	return document(t).doc
}

// Check says what is wrong with an answer; see Checker.Check.
func (r *Rig) Check(a Answer) error { return r.checker.Check(a) }

// Fits says how a JSON text does not fit the schema at a pointer.
func (r *Rig) Fits(pointer string, text []byte) error { return r.checker.fits(pointer, text) }
