package stream

import "strconv"

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

// field is one member of a part or of its data: a string, a bool or raw.
type field struct {
	name  string
	value any
}

// raw is canonical JSON.
type raw []byte

// appendFields writes a part.
func appendFields(b []byte, partType string, fields ...field) []byte {
	b = append(b, `data: {"type":"`...)
	b = append(b, partType...)
	b = append(b, '"')
	for _, f := range fields {
		b = append(b, ',')
		b = appendField(b, f)
	}
	return append(b, "}\n"...)
}

// dataPart writes a data part; a later one under its id takes its place.
func dataPart(b []byte, partType, id string, fields ...field) []byte {
	data := []byte{'{'}
	for i, f := range fields {
		if i > 0 {
			data = append(data, ',')
		}
		data = appendField(data, f)
	}
	return appendFields(b, partType, field{"id", id}, field{"data", raw(append(data, '}'))})
}

func appendField(b []byte, f field) []byte {
	b = append(b, '"')
	b = append(b, f.name...)
	b = append(b, `":`...)
	switch v := f.value.(type) {
	case raw:
		return appendLiteral(b, v)
	case bool:
		return strconv.AppendBool(b, v)
	default:
		b = append(b, '"')
		b = appendEscaped(b, v.(string))
		return append(b, '"')
	}
}
