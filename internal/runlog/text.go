package runlog

import "strings"

// Storable is a text as a text column takes it: valid UTF-8 without NUL. What is
// not becomes U+FFFD, so that nothing a stranger says keeps a unit from being
// written.
func Storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
