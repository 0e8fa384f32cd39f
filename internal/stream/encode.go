package stream

// member is one string member of a part.
type member struct{ name, value string }

// appendMembers writes a part whose members are strings, in the order given.
func appendMembers(b []byte, partType string, members ...member) []byte {
	b = append(b, `data: {"type":"`...)
	b = append(b, partType...)
	for _, m := range members {
		b = append(b, `","`...)
		b = append(b, m.name...)
		b = append(b, `":"`...)
		b = appendEscaped(b, m.value)
	}
	return append(b, "\"}\n"...)
}

// appendDelta is appendMembers for values that are JSON already.
func appendDelta(b []byte, partType string, id, delta []byte) []byte {
	b = append(b, `data: {"type":"`...)
	b = append(b, partType...)
	b = append(b, `","id":"`...)
	b = appendLiteral(b, id)
	b = append(b, `","delta":"`...)
	b = appendLiteral(b, delta)
	return append(b, "\"}\n"...)
}
