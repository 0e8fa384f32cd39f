package bolt11

import (
	"crypto/sha256"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/stretchr/testify/require"
)

var testKey = secp256k1.PrivKeyFromBytes([]byte("a key of thirty-two bytes, or so"))

type field struct {
	kind byte
	data []byte
}

// signed writes an invoice of any fields, with a good checksum and signature.
func signed(hrp string, fields ...field) string {
	data := digits(1496314658, timestampSize)
	for _, f := range fields {
		data = append(data, f.kind, byte(len(f.data)>>5), byte(len(f.data)&31))
		data = append(data, f.data...)
	}
	return sign(hrp, data)
}

func sign(hrp string, data []byte) string {
	digest := sha256.Sum256(append([]byte(hrp), pack(data, true)...))
	compact := ecdsa.SignCompact(testKey, digest[:], true)
	return bech32(hrp, append(data, unpack(append(compact[1:], (compact[0]-27)&3))...))
}

func groups(n int, v byte) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func TestOddInvoicesAreRefused(t *testing.T) {
	t.Parallel()
	hash := field{fieldHash, groups(hashGroups, 1)}
	other := secp256k1.PrivKeyFromBytes([]byte("another key of thirty-two bytes.")).PubKey().SerializeCompressed()
	for name, c := range map[string]struct{ text, why string }{
		"no hash":                {signed("lnbc1u"), "no payment hash"},
		"two hashes":             {signed("lnbc1u", hash, field{fieldHash, groups(hashGroups, 2)}), "twice"},
		"another payee":          {signed("lnbc1u", hash, field{fieldPayee, unpack(other)}), "signature"},
		"payee that is no key":   {signed("lnbc1u", hash, field{fieldPayee, groups(payeeGroups, 31)}), "no public key"},
		"unknown network":        {signed("lnxx1u", hash), "network"},
		"no invoice":             {signed("bc", hash), "network"},
		"leading zero":           {signed("lnbc01u", hash), "network"},
		"amount of nothing":      {signed("lnbc0u", hash), "network"},
		"finer than a millisat":  {signed("lnbc11p", hash), "finer"},
		"more than there is":     {signed("lnbc21000001", hash), "more than there can be"},
		"far too much":           {signed("lnbc9999999999999999999", hash), "too large"},
		"unit that is unknown":   {signed("lnbc1k", hash), "network"},
		"description":            {signed("lnbc1u", hash, field{fieldDescription, unpack([]byte{0xff, 0xfe})}), "UTF-8"},
		"field without a length": {sign("lnbc1u", append(groups(timestampSize, 1), fieldDescription, 0)), "cut off"},
		"field cut off":          {sign("lnbc1u", append(groups(timestampSize, 1), fieldDescription, 0, 9, 1)), "cut off"},
		"cut off":                {signed("lnbc1u", hash)[:20], "checksum"},
		"no signature":           {bech32("lnbc1u", groups(signatureSize, 1)), "too short"},
		"mixed letters":          {"LN" + signed("lnbc1u", hash)[2:], "both cases"},
		"not bech32":             {"lnbc1u1bbbbbbbb", "none of bech32's"},
		"empty":                  {"", "short"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Decode(c.text)
			require.ErrorContains(t, err, c.why)
		})
	}
	long := make([]byte, maxText+1)
	_, err := Decode(string(long))
	require.ErrorContains(t, err, "too long")
}

// Fields of another length are other fields, and the payee may be stated.
func TestUnknownFieldsArePassedOver(t *testing.T) {
	t.Parallel()
	key := testKey.PubKey().SerializeCompressed()
	i, err := Decode(signed("lnbc1u",
		field{fieldHash, groups(10, 3)}, field{fieldHash, groups(hashGroups, 0)}, field{29, groups(100, 7)},
		field{fieldPayee, unpack(key)}, field{fieldExpiry, groups(20, 31)}))
	require.NoError(t, err)
	require.Equal(t, [33]byte(key), i.Payee)
	require.Equal(t, longestExpiry, i.Expiry)
	require.Equal(t, int64(100_000), i.AmountMsat)
}
