package bolt11_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/wallet/bolt11"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

// The examples of BOLT 11 are signed with a key that it publishes, and signing is
// deterministic: who writes the same facts gets the published text. Of that text
// the digest stands here.
func TestTheExamplesOfTheSpecificationComeOut(t *testing.T) {
	t.Parallel()
	key := secp256k1.PrivKeyFromBytes(unhex(t, "e126f68f7eafcc8b74f54d269fe206be715000f94dac067d1c04a8ca3b2db734"))
	hash := [32]byte(unhex(t, "0001020304050607080900010203040506070809000102030405060708090102"))
	at := time.Unix(1496314658, 0).UTC()
	list := sha256.Sum256([]byte("One piece of chocolate cake, one icecream cone, one pickle, one slice of swiss cheese, " +
		"one slice of salami, one lollypop, one piece of cherry pie, one sausage, one cupcake, and one slice of watermelon"))
	for digest, want := range map[string]bolt11.Invoice{
		"acf7209b3cfcf4c83ac29509570ae2659b2f6c9141fcce95148869d58600a5ca": {Description: "Please consider supporting this project", Expiry: time.Hour},
		"07ecd4b4ff3fdd0f099811305a9275d72d64b7956be7c48859fae4c4628603fd": {AmountMsat: 250_000_000, Description: "1 cup coffee", Expiry: time.Minute},
		"b0570e0630abf85d75fe69790b587d5f74e7a4d2995f6ee9b129e149def02e4f": {AmountMsat: 250_000_000, Description: "ナンセンス 1杯", Expiry: time.Minute},
		"e765cd28b596d6fab97d8bb1b99f59e0f0b73ac8c8a1c953069ab31e383b3d4d": {AmountMsat: 2_000_000_000, DescriptionHash: &list, Expiry: time.Hour},
	} {
		want.Network, want.PaymentHash, want.CreatedAt = bolt11.Mainnet, hash, at
		text, err := bolt11.Encode(want, key)
		require.NoError(t, err)
		sum := sha256.Sum256([]byte(text))
		require.Equal(t, digest, hex.EncodeToString(sum[:]), text)

		got, err := bolt11.Decode(text)
		require.NoError(t, err)
		require.Equal(t, "03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad", got.PayeeHex())
		want.Payee = got.Payee
		require.Equal(t, want, got)

		upper, err := bolt11.Decode(strings.ToUpper(text))
		require.NoError(t, err)
		require.Equal(t, got, upper)
	}
}

func anInvoice(t *rapid.T) (bolt11.Invoice, *secp256k1.PrivateKey) {
	key := secp256k1.PrivKeyFromBytes(rapid.SliceOfN(rapid.ByteRange(1, 255), 32, 32).Draw(t, "key"))
	i := bolt11.Invoice{
		Network:     rapid.SampledFrom([]bolt11.Network{bolt11.Mainnet, bolt11.Testnet, bolt11.Signet, bolt11.Regtest}).Draw(t, "network"),
		AmountMsat:  rapid.Int64Range(0, bolt11.MaxAmountMsat).Draw(t, "amount"),
		CreatedAt:   time.Unix(rapid.Int64Range(0, 1<<35-1).Draw(t, "at"), 0).UTC(),
		Expiry:      time.Duration(rapid.Int64Range(1, 1<<26).Draw(t, "expiry")) * time.Second,
		PaymentHash: [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash")),
		Description: rapid.StringN(0, 100, 600).Draw(t, "description"),
	}
	if rapid.Bool().Draw(t, "secret") {
		s := [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "paymentSecret"))
		i.PaymentSecret = &s
	}
	i.Payee = [33]byte(key.PubKey().SerializeCompressed())
	return i, key
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want, key := anInvoice(t)
		text, err := bolt11.Encode(want, key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := bolt11.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		require.Equal(t, want, got)
	})
}

// A character of an invoice that is another one makes it unreadable, and who makes
// the checksum fit becomes another payee.
func TestNoCharacterCanBeChanged(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		i, key := anInvoice(t)
		text, err := bolt11.Encode(i, key)
		if err != nil {
			t.Fatal(err)
		}
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		c := rapid.SampledFrom([]byte("qpzry9x8gf2tvdw0s3jn54khce6mua7l1")).Draw(t, "c")
		changed := text[:at] + string(c) + text[at+1:]
		if changed == text {
			return
		}
		if _, err := bolt11.Decode(changed); err == nil {
			t.Fatalf("%s was read", changed)
		}
	})
}

func FuzzDecodeNeverBreaks(f *testing.F) {
	key := secp256k1.PrivKeyFromBytes([]byte("a key of thirty-two bytes, or so"))
	text, err := bolt11.Encode(bolt11.Invoice{Network: bolt11.Regtest, AmountMsat: 1, CreatedAt: time.Unix(1, 0)}, key)
	require.NoError(f, err)
	f.Add(text)
	f.Add("lnbc1")
	f.Fuzz(func(t *testing.T, text string) {
		i, err := bolt11.Decode(text)
		if err == nil && (i.AmountMsat < 0 || i.AmountMsat > bolt11.MaxAmountMsat || i.Expiry < 0) {
			t.Fatalf("%+v", i)
		}
	})
}
