package canon

import (
	"bytes"
	"math"
	"strconv"
)

const (
	safeInteger = 1<<53 - 1 // the largest n where n and n+1 are both doubles
	machineWord = 1 << 64
)

// number reads the number at pos and writes it as ECMAScript's Number::toString.
//
// A whole number beyond ±(2^53−1) is refused, however it is spelled, up to 2^64:
// there live identifiers and amounts that a double rounds in silence. Above
// that only doubles are meant, and canonical form itself spells them without an
// exponent up to 1e21: such digits are taken when they are exactly that
// spelling, and refused when reading them as a double would change them.
func (e *encoder) number() error {
	start := e.pos
	whole, ok := e.numeral()
	if !ok {
		return e.fail(e.pos, "this is not how JSON writes a number")
	}
	text := e.src[start:e.pos]
	if whole && len(text) <= 15 && string(text) != "-0" {
		e.out = append(e.out, text...)
		return nil
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return e.fail(start, "the number is larger than any double")
	}
	if size := math.Abs(f); size > safeInteger && size <= machineWord {
		return e.fail(start, "an integer beyond ±(2^53−1): send it as a string")
	}
	at := len(e.out)
	e.out = appendNumber(e.out, f)
	if whole && math.Abs(f) > machineWord && !bytes.Equal(e.out[at:], text) {
		return e.fail(start, "an integer that no double holds: send it as a string")
	}
	return nil
}

// numeral moves pos over one number and says whether it is written without
// fraction and exponent.
func (e *encoder) numeral() (whole, ok bool) {
	e.take('-')
	if !e.take('0') && !e.digits() {
		return false, false
	}
	whole = true
	if e.take('.') {
		whole = false
		if !e.digits() {
			return false, false
		}
	}
	if e.take('e') || e.take('E') {
		whole = false
		if !e.take('+') {
			e.take('-')
		}
		if !e.digits() {
			return false, false
		}
	}
	return whole, true
}

func (e *encoder) digits() bool {
	from := e.pos
	for e.pos < len(e.src) && '0' <= e.src[e.pos] && e.src[e.pos] <= '9' {
		e.pos++
	}
	return e.pos > from
}

// appendNumber appends f as ECMAScript writes it: the shortest digits that read
// back as f, with an exponent only below 1e-6 and from 1e21 on.
func appendNumber(out []byte, f float64) []byte {
	if f == 0 {
		return append(out, '0')
	}
	if size := math.Abs(f); size >= 1e-6 && size < 1e21 {
		return strconv.AppendFloat(out, f, 'f', -1, 64)
	}
	at := len(out)
	out = strconv.AppendFloat(out, f, 'e', -1, 64)
	// strconv writes two digits of exponent at least: 1e-07.
	if n := len(out); n-at >= 4 && out[n-2] == '0' && (out[n-3] == '-' || out[n-3] == '+') {
		out[n-2] = out[n-1]
		out = out[:n-1]
	}
	return out
}
