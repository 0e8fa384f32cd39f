package runlog

import "bytes"

// DeltaLiterals takes the two strings out of a delta's canonical payload, as
// they stand between their quotes. ok says that there is nothing else in it.
func DeltaLiterals(payload []byte) (text, id []byte, ok bool) {
	rest, ok := bytes.CutPrefix(payload, []byte(`{"delta":"`))
	if !ok {
		return nil, nil, false
	}
	if text, rest, ok = cutLiteral(rest); !ok {
		return nil, nil, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"part_id":"`)); !ok {
		return nil, nil, false
	}
	id, rest, ok = cutLiteral(rest)
	return text, id, ok && string(rest) == "}"
}

// cutLiteral cuts a JSON string at its closing quote.
func cutLiteral(b []byte) (literal, rest []byte, ok bool) {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return b[:i], b[i+1:], true
		}
	}
	return nil, nil, false
}

// deltaPayload is the payload that DeltaLiterals takes apart.
func deltaPayload(text, id []byte) []byte {
	b := make([]byte, 0, len(text)+len(id)+len(`{"delta":"","part_id":""}`))
	b = append(append(b, `{"delta":"`...), text...)
	b = append(append(b, `","part_id":"`...), id...)
	return append(b, `"}`...)
}
