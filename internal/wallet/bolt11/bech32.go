package bolt11

import (
	"errors"
	"strings"
)

const letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

// checksum is BIP-173's, of 5-bit groups.
func checksum(hrp string, data []byte) uint32 {
	sum := uint32(1)
	add := func(v byte) {
		top := sum >> 25
		sum = sum&0x1ffffff<<5 ^ uint32(v)
		for i, g := range [...]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	for i := range len(hrp) {
		add(hrp[i] >> 5)
	}
	add(0)
	for i := range len(hrp) {
		add(hrp[i] & 31)
	}
	for _, v := range data {
		add(v)
	}
	return sum
}

// bech32 is the text of a prefix and 5-bit groups.
func bech32(hrp string, data []byte) string {
	sum := checksum(hrp, append(data[:len(data):len(data)], 0, 0, 0, 0, 0, 0)) ^ 1
	var b strings.Builder
	b.WriteString(hrp + "1")
	for _, v := range data {
		b.WriteByte(letters[v])
	}
	for i := 5; i >= 0; i-- {
		b.WriteByte(letters[sum>>(5*i)&31])
	}
	return b.String()
}

// parseBech32 undoes bech32, without BIP-173's bound of 90 characters.
func parseBech32(s string) (hrp string, data []byte, err error) {
	lower := strings.ToLower(s)
	if s != lower && s != strings.ToUpper(s) {
		return "", nil, errors.New("its letters are of both cases")
	}
	at := strings.LastIndexByte(lower, '1')
	if at < 1 || len(lower)-at-1 < 6 {
		return "", nil, errors.New("it is too short")
	}
	hrp = lower[:at]
	if strings.ContainsFunc(hrp, func(r rune) bool { return r < '!' || r > '~' }) {
		return "", nil, errors.New("its prefix is not ASCII")
	}
	for i := at + 1; i < len(lower); i++ {
		v := strings.IndexByte(letters, lower[i])
		if v < 0 {
			return "", nil, errors.New("a character is none of bech32's")
		}
		data = append(data, byte(v))
	}
	if checksum(hrp, data) != 1 {
		return "", nil, errors.New("its checksum is wrong")
	}
	return hrp, data[:len(data)-6], nil
}

// pack makes bytes of 5-bit groups. The bits that do not fill a byte are dropped,
// or, with pad, filled up with zeros.
func pack(groups []byte, pad bool) []byte {
	out := make([]byte, 0, len(groups)*5/8+1)
	var acc uint
	n := 0
	for _, g := range groups {
		acc, n = acc<<5|uint(g), n+5
		if n >= 8 {
			n -= 8
			out = append(out, byte(acc>>n))
		}
	}
	if pad && n > 0 {
		out = append(out, byte(acc<<(8-n)))
	}
	return out
}

// unpack makes 5-bit groups of bytes, with zeros at the end.
func unpack(b []byte) []byte {
	out := make([]byte, 0, (len(b)*8+4)/5)
	var acc uint
	n := 0
	for _, c := range b {
		acc, n = acc<<8|uint(c), n+8
		for n >= 5 {
			n -= 5
			out = append(out, byte(acc>>n)&31)
		}
	}
	if n > 0 {
		out = append(out, byte(acc<<(5-n))&31)
	}
	return out
}

// number reads a big-endian number; ok is false when it does not fit 62 bits.
func number(groups []byte) (v int64, ok bool) {
	for _, g := range groups {
		if v >= 1<<57 {
			return 0, false
		}
		v = v<<5 | int64(g)
	}
	return v, true
}

// digits are the groups of a number, as few as hold it but at least so many.
func digits(v int64, least int) []byte {
	var out []byte
	for v > 0 || len(out) < least {
		out = append([]byte{byte(v & 31)}, out...)
		v >>= 5
	}
	return out
}
