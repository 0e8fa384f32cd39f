package canon

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/google/uuid"
)

const digestPrefix = "sha256:"

// Digest is a SHA-256 digest. Its text is "sha256:" and 64 lowercase hex digits.
type Digest [sha256.Size]byte

// Sum is the digest of bytes.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// Hash is the text of Sum.
func Hash(b []byte) string { return Sum(b).String() }

// ParseDigest reads a digest's text, strictly.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != len(digestPrefix)+2*len(d) || s[:len(digestPrefix)] != digestPrefix {
		return d, fmt.Errorf("a digest is %s and %d lowercase hex digits", digestPrefix, 2*len(d))
	}
	for i := range s[len(digestPrefix):] {
		if c := s[len(digestPrefix)+i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return d, fmt.Errorf("a digest has lowercase hex digits only")
		}
	}
	_, err := hex.Decode(d[:], []byte(s[len(digestPrefix):]))
	return d, err
}

func (d Digest) String() string {
	return string(d.append(make([]byte, 0, len(digestPrefix)+2*len(d))))
}

func (d Digest) append(out []byte) []byte {
	return hex.AppendEncode(append(out, digestPrefix...), d[:])
}

// NewKey makes a key that sorts by the time of its making (UUIDv7).
func NewKey() uuid.UUID { return uuid.Must(uuid.NewV7()) }
