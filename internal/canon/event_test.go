package canon_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

type link struct {
	RunID            string `json:"run_id"`
	Seq              string `json:"seq"`
	EventType        string `json:"event_type"`
	EventVersion     int    `json:"event_version"`
	Payload          string `json:"payload"`
	CanonicalPayload string `json:"canonical_payload"`
	ContentHash      string `json:"content_hash"`
	PrevHash         string `json:"prev_hash"`
	Preimage         string `json:"preimage"`
	EventHash        string `json:"event_hash"`
}

func TestEventChainVectors(t *testing.T) {
	t.Parallel()
	var prev canon.Digest
	for i, l := range fixture[link](t, "event_chain.json") {
		if i == 0 {
			prev = canon.FirstPrevHash(l.RunID)
		}
		require.Equal(t, l.PrevHash, prev.String())
		payload, err := canon.JSON([]byte(l.Payload))
		require.NoError(t, err)
		require.Equal(t, l.CanonicalPayload, string(payload))
		content := canon.Sum(payload)
		require.Equal(t, l.ContentHash, content.String())
		seq, err := strconv.ParseInt(l.Seq, 10, 64)
		require.NoError(t, err)

		prev, err = canon.EventHash(l.RunID, seq, l.EventType, l.EventVersion, content, prev)
		require.NoError(t, err)
		require.Equal(t, l.EventHash, prev.String())
		require.Equal(t, l.EventHash, canon.Hash([]byte(l.Preimage)))
	}
}

// The bytes that EventHash writes by hand are those of the general encoder.
func TestEventHashIsTheHashOfItsCanonicalJSON(t *testing.T) {
	t.Parallel()
	text := rapid.Map(rapid.String(), func(s string) string { return strings.ToValidUTF8(s, "?") })
	rapid.Check(t, func(t *rapid.T) {
		runID, eventType := text.Draw(t, "run_id"), text.Draw(t, "event_type")
		seq := rapid.Int64Min(1).Draw(t, "seq")
		version := rapid.IntRange(1, 1<<53-1).Draw(t, "version")
		content := canon.Sum([]byte(text.Draw(t, "payload")))
		prev := canon.FirstPrevHash(runID)
		want, err := canon.HashJSON(map[string]any{
			"content_hash": content.String(), "event_type": eventType, "event_version": version,
			"prev_hash": prev.String(), "run_id": runID, "seq": strconv.FormatInt(seq, 10),
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := canon.EventHash(runID, seq, eventType, version, content, prev)
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != want {
			t.Fatalf("%s, want %s", got, want)
		}
	})
}

func TestEventHashRefusesWhatHasNoCanonicalForm(t *testing.T) {
	t.Parallel()
	for name, hash := range map[string]func(canon.Digest) (canon.Digest, error){
		"run id":  func(d canon.Digest) (canon.Digest, error) { return canon.EventHash("\xff", 1, "a", 1, d, d) },
		"type":    func(d canon.Digest) (canon.Digest, error) { return canon.EventHash("r", 1, "\xff", 1, d, d) },
		"seq":     func(d canon.Digest) (canon.Digest, error) { return canon.EventHash("r", 0, "a", 1, d, d) },
		"version": func(d canon.Digest) (canon.Digest, error) { return canon.EventHash("r", 1, "a", 0, d, d) },
	} {
		_, err := hash(canon.Digest{})
		require.Error(t, err, name)
	}
}

func TestParseDigest(t *testing.T) {
	t.Parallel()
	d := canon.Sum([]byte("hello"))
	require.Equal(t, "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", d.String())
	back, err := canon.ParseDigest(d.String())
	require.NoError(t, err)
	require.Equal(t, d, back)
	for _, s := range []string{"", "sha256:", strings.ToUpper(d.String()), d.String()[7:], d.String() + "0",
		"sha512:" + d.String()[7:], "sha256:" + strings.ToUpper(d.String()[7:]), d.String()[:70] + "g"} {
		_, err := canon.ParseDigest(s)
		require.Error(t, err, s)
	}
}

func TestKeysSortByTheirMaking(t *testing.T) {
	t.Parallel()
	last := canon.NewKey()
	for range 1000 {
		next := canon.NewKey()
		require.Less(t, last.String(), next.String())
		require.EqualValues(t, 7, next.Version())
		last = next
	}
}

func BenchmarkEventHash(b *testing.B) {
	content, prev := canon.Sum([]byte("{}")), canon.FirstPrevHash("r")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := canon.EventHash("01951c2e-8f3a-7c1b-9d54-0f6f1a2b3c4d", 123456, "message.delta", 1, content, prev); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEventHashFloor is what hashing bytes of that length costs alone.
func BenchmarkEventHashFloor(b *testing.B) {
	raw := make([]byte, 300)
	for b.Loop() {
		canon.Sum(raw)
	}
}
