package canon_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

type vector struct {
	Name       string `json:"name"`
	Text       string `json:"text"`
	TextBase64 string `json:"text_base64"`
	IEEE754    string `json:"ieee754"`
	Canonical  string `json:"canonical"`
	SHA256     string `json:"sha256"`
	Error      bool   `json:"error"`
}

func (v vector) bytes(t testing.TB) []byte {
	if v.TextBase64 == "" {
		return []byte(v.Text)
	}
	b, err := base64.StdEncoding.DecodeString(v.TextBase64)
	require.NoError(t, err)
	return b
}

func fixture[T any](t testing.TB, name string) []T {
	raw, err := os.ReadFile("../../schemas/ds/fixtures/" + name)
	require.NoError(t, err)
	var all []T
	require.NoError(t, json.Unmarshal(raw, &all))
	require.NotEmpty(t, all)
	return all
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range fixture[vector](t, "canon.json") {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			got, err := canon.JSON(v.bytes(t))
			if v.Error {
				var refused *canon.Error
				require.ErrorAs(t, err, &refused)
				require.Nil(t, got)
				return
			}
			require.NoError(t, err)
			require.Equal(t, v.Canonical, string(got))
			require.Equal(t, v.SHA256, canon.Hash(got))

			again, err := canon.JSON(got)
			require.NoError(t, err)
			require.Equal(t, v.Canonical, string(again), "canonical form is its own canonical form")

			if v.IEEE754 != "" {
				bits, err := strconv.ParseUint(v.IEEE754, 16, 64)
				require.NoError(t, err)
				got, err := canon.Marshal(math.Float64frombits(bits))
				require.NoError(t, err)
				require.Equal(t, v.Canonical, string(got))
			}
		})
	}
}

func TestErrorsSayWhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, pointer string
		offset        int
	}{
		{`{"a":[1,{"b/~":nul}]}`, "/a/1/b~1~0", 15},
		{`{"a":{"x":1,"y":2,"x":3}}`, "/a/x", 18},
		{`[0,9007199254740992]`, "/1", 3},
		{`{"k":"\ud800"}`, "/k", 6},
		{`[] []`, "", 3},
		{`["` + "\x80" + `"]`, "/0", 2},
		{`{"` + strings.Repeat("k", 100) + `":x}`, "/" + strings.Repeat("k", 64) + "…", 104},
	} {
		_, err := canon.JSON([]byte(c.text))
		var refused *canon.Error
		require.ErrorAs(t, err, &refused, c.text)
		require.Equal(t, c.pointer, refused.Pointer, c.text)
		require.Equal(t, c.offset, refused.Offset, c.text)
		require.Contains(t, err.Error(), strconv.Itoa(c.offset))
	}
}

func TestHostileSizesAreAnswered(t *testing.T) {
	t.Parallel()
	refused := func(text string) {
		_, err := canon.JSON([]byte(text))
		require.Error(t, err)
	}
	refused(strings.Repeat("[", 100_000))
	refused(strings.Repeat(`{"a":`, 100_000))
	refused(strings.Repeat("9", 100_000))

	tiny, err := canon.JSON([]byte("0." + strings.Repeat("0", 100_000) + "1"))
	require.NoError(t, err)
	require.Equal(t, "0", string(tiny))

	var b strings.Builder
	b.WriteString(`{"k0":0`)
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(200_000) {
		fmt.Fprintf(&b, `,"k%d":0`, i+1)
	}
	many, err := canon.JSON([]byte(b.String() + "}"))
	require.NoError(t, err)
	require.Len(t, many, b.Len()+1)
	refused(b.String() + `,"k5":1}`)
}

func TestMarshalRefusesWhatJSONWouldChange(t *testing.T) {
	t.Parallel()
	for _, v := range []any{
		"bad \xff byte", map[string]int{"\xc0\xaf": 1}, int64(1) << 53, uint64(math.MaxUint64),
		math.NaN(), math.Inf(1), func() {}, json.RawMessage(`{"a":1,"a":2}`),
	} {
		_, err := canon.Marshal(v)
		require.Error(t, err, "%T", v)
		_, err = canon.HashJSON(v)
		require.Error(t, err, "%T", v)
	}
	got, err := canon.Marshal(struct {
		B string `json:"b"`
		A *int   `json:"a,omitempty"`
	}{B: "true \ufffd & <b>"})
	require.NoError(t, err)
	require.Equal(t, "{\"b\":\"true \ufffd & <b>\"}", string(got))
}

// Order, spacing and spelling of a text do not reach the hash.
func TestSpellingDoesNotChangeTheHash(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := anyValue(3).Draw(t, "value")
		want, err := canon.HashJSON(v)
		if err != nil {
			t.Fatal(err)
		}
		text := respell(t, v)
		got, err := canon.JSON([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if canon.Hash(got) != want {
			t.Fatalf("%s has another hash", text)
		}
	})
}

func anyValue(depth int) *rapid.Generator[any] {
	leaf := rapid.OneOf(
		rapid.Just(any(nil)), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.String(), func(s string) any { return strings.ToValidUTF8(s, "?") }),
		rapid.Map(rapid.Int64Range(-1<<53+1, 1<<53-1), func(i int64) any { return i }),
		rapid.Map(rapid.Float64Range(-1e9, 1e9), func(f float64) any { return f }),
	)
	if depth == 0 {
		return leaf
	}
	name := rapid.Map(rapid.String(), func(s string) string { return strings.ToValidUTF8(s, "?") })
	return rapid.OneOf(leaf,
		rapid.Map(rapid.SliceOfN(anyValue(depth-1), 0, 5), func(a []any) any { return a }),
		rapid.Map(rapid.MapOfN(name, anyValue(depth-1), 0, 5), func(m map[string]any) any { return m }))
}

// respell writes a value with members in any order, spaces anywhere, and
// characters escaped or not.
func respell(t *rapid.T, v any) string {
	space := rapid.SampledFrom([]string{"", " ", "\n\t", "\r"})
	pad := func(s string) string { return space.Draw(t, "space") + s + space.Draw(t, "space") }
	quote := func(s string) string {
		if rapid.Bool().Draw(t, "plain") {
			b, _ := json.Marshal(s)
			return string(b)
		}
		var out strings.Builder
		for _, r := range s {
			if r >= 0x10000 {
				fmt.Fprintf(&out, `\u%04X\u%04x`, 0xD800+(r-0x10000)>>10, 0xDC00+(r-0x10000)&0x3ff)
			} else {
				fmt.Fprintf(&out, `\u%04X`, r)
			}
		}
		return `"` + out.String() + `"`
	}
	switch v := v.(type) {
	case string:
		return pad(quote(v))
	case float64:
		return pad(strconv.FormatFloat(v, 'E', rapid.IntRange(17, 30).Draw(t, "digits"), 64))
	case int64:
		return pad(strconv.FormatInt(v, 10) + rapid.SampledFrom([]string{"", ".0", "e0", "E+00"}).Draw(t, "tail"))
	case []any:
		parts := make([]string, len(v))
		for i, x := range v {
			parts[i] = respell(t, x)
		}
		return pad("[" + space.Draw(t, "space") + strings.Join(parts, ",") + "]")
	case map[string]any:
		var parts []string
		for k, x := range v {
			parts = append(parts, pad(quote(k))+":"+respell(t, x))
		}
		return pad("{" + space.Draw(t, "space") + strings.Join(parts, ",") + "}")
	default:
		b, _ := json.Marshal(v)
		return pad(string(b))
	}
}

func FuzzJSON(f *testing.F) {
	for _, v := range fixture[vector](f, "canon.json") {
		f.Add(v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := string(raw)
		once, err := canon.JSON(raw)
		require.Equal(t, before, string(raw), "the input is left alone")
		if err != nil {
			return
		}
		twice, err := canon.JSON(once)
		require.NoError(t, err, "%s", once)
		require.Equal(t, string(once), string(twice))

		var was, is any
		require.NoError(t, json.Unmarshal(raw, &was), "only JSON is accepted")
		require.NoError(t, json.Unmarshal(once, &is))
		require.Equal(t, was, is, "the same value")
	})
}

func BenchmarkJSON(b *testing.B) {
	row := `{"tool":"weather","arguments":{"city":"St. John's","units":"metric"},"ok":true,"cost":12}`
	for name, text := range map[string]string{
		"delta":      `{"message_id":"msg_0001","run_id":"01951c2e-8f3a-7c1b-9d54","text":"hello there, "}`,
		"tool_2KB":   "[" + strings.Repeat(row+",", 23) + row + "]",
		"canon_2KB":  string(must(canon.JSON([]byte("[" + strings.Repeat(row+",", 23) + row + "]")))),
		"floats_1KB": "[" + strings.Repeat("0.123456789012,", 70) + "1]",
	} {
		b.Run(name, func(b *testing.B) {
			raw := []byte(text)
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := canon.JSON(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestATextMaySpeakOfTheEscapeThatStandsForABadByte(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`\ufffd`, `\\ufffd`, `a\ufffd\ufffd`, "\ufffd"} {
		_, err := canon.Marshal(map[string]string{"a": text})
		require.NoError(t, err, "%q", text)
	}
	for _, text := range []string{"\xff", `\` + "\xff", `\ufffd` + "\xff"} {
		_, err := canon.Marshal(map[string]string{"a": text})
		require.Error(t, err, "%q", text)
	}
}
