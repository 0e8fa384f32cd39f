// Package bolt11 reads and writes Lightning invoices as BOLT 11 says.
package bolt11

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// Network is where an invoice is paid.
type Network string

// The networks.
const (
	Mainnet Network = "mainnet"
	Testnet Network = "testnet"
	Signet  Network = "signet"
	Regtest Network = "regtest"
)

var prefixes = map[string]Network{"bc": Mainnet, "tb": Testnet, "tbs": Signet, "bcrt": Regtest}

// Invoice is what a payee asks for.
type Invoice struct {
	Network Network
	// AmountMsat is 0 when the payer is to choose.
	AmountMsat  int64
	CreatedAt   time.Time // in seconds
	Expiry      time.Duration
	PaymentHash [32]byte
	// PaymentSecret is nil when there is none.
	PaymentSecret *[32]byte
	// Payee is the compressed public key of the node that is paid; it has signed.
	Payee [33]byte
	// Description is empty when the invoice has only its hash.
	Description     string
	DescriptionHash *[32]byte
}

const (
	// maxText is more than any invoice that nodes take.
	maxText = 8 << 10
	// MaxAmountMsat is 21 million bitcoin.
	MaxAmountMsat int64 = 2_100_000_000_000_000_000

	defaultExpiry  = time.Hour
	signatureSize  = 104 // groups
	timestampSize  = 7
	longestExpiry  = 10 * 365 * 24 * time.Hour
	hashGroups     = 52
	payeeGroups    = 53
	defaultFinal   = 80
	secretFeatures = 1<<15 | 1<<9 // payment_secret and var_onion_optin, optional
)

// The types of tagged fields that are read.
const (
	fieldHash            = 1
	fieldExpiry          = 6
	fieldDescription     = 13
	fieldSecret          = 16
	fieldPayee           = 19
	fieldDescriptionHash = 23
	fieldFinalCLTV       = 24
	fieldFeatures        = 5
)

// ExpiresAt is when it may no longer be paid.
func (i Invoice) ExpiresAt() time.Time { return i.CreatedAt.Add(i.Expiry) }

// PayeeHex is the payee's key in hex.
func (i Invoice) PayeeHex() string { return hex.EncodeToString(i.Payee[:]) }

// HashHex is the payment's hash in hex.
func (i Invoice) HashHex() string { return hex.EncodeToString(i.PaymentHash[:]) }

var hrpForm = regexp.MustCompile(`^ln(bcrt|bc|tbs|tb)(?:([1-9][0-9]{0,19})([munp]?))?$`)

// amount is a prefix's amount in thousandths of a sat.
func amount(text, unit string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, errors.New("its amount is too large")
	}
	if unit == "p" {
		if n%10 != 0 {
			return 0, errors.New("its amount is finer than a millisat")
		}
		n, unit = n/10, "msat"
	}
	// Of a bitcoin, in millisats.
	factor := map[string]int64{"": 100_000_000_000, "m": 100_000_000, "u": 100_000, "n": 100, "msat": 1}[unit]
	if n > MaxAmountMsat/factor {
		return 0, errors.New("its amount is more than there can be")
	}
	return n * factor, nil
}

// Decode reads an invoice and checks its checksum and its signature. What two
// readers could understand in two ways is refused: a field that may be there once
// and is there twice. Errors hold nothing of the text.
func Decode(text string) (Invoice, error) {
	i, err := decode(text)
	if err != nil {
		return Invoice{}, fmt.Errorf("the invoice cannot be read: %w", err)
	}
	return i, nil
}

func decode(text string) (Invoice, error) {
	if len(text) > maxText {
		return Invoice{}, errors.New("it is too long")
	}
	hrp, data, err := parseBech32(text)
	if err != nil {
		return Invoice{}, err
	}
	form := hrpForm.FindStringSubmatch(hrp)
	if form == nil {
		return Invoice{}, errors.New("its prefix is not of a known network, or its amount is no number")
	}
	i := Invoice{Network: prefixes[form[1]], Expiry: defaultExpiry}
	if i.AmountMsat, err = amount(form[2], form[3]); err != nil {
		return Invoice{}, err
	}
	if len(data) < timestampSize+signatureSize {
		return Invoice{}, errors.New("it is too short")
	}
	signed, signature := data[:len(data)-signatureSize], pack(data[len(data)-signatureSize:], false)
	seconds, _ := number(signed[:timestampSize])
	i.CreatedAt = time.Unix(seconds, 0).UTC()
	stated, err := i.fields(signed[timestampSize:])
	if err != nil {
		return Invoice{}, err
	}
	digest := sha256.Sum256(append([]byte(hrp), pack(signed, true)...))
	if i.Payee, err = signer(stated, signature, digest); err != nil {
		return Invoice{}, err
	}
	return i, nil
}

// fields reads the tagged fields. stated is the payee's key, when it is there.
func (i *Invoice) fields(groups []byte) (stated []byte, _ error) {
	seen := map[byte]bool{}
	for len(groups) > 0 {
		if len(groups) < 3 {
			return nil, errors.New("a field is cut off")
		}
		kind, n := groups[0], int(groups[1])<<5|int(groups[2])
		if groups = groups[3:]; len(groups) < n {
			return nil, errors.New("a field is cut off")
		}
		value := groups[:n]
		groups = groups[n:]
		switch {
		case (kind == fieldHash || kind == fieldSecret || kind == fieldDescriptionHash) && n != hashGroups,
			kind == fieldPayee && n != payeeGroups:
			continue // of another kind than is known
		case kind != fieldHash && kind != fieldSecret && kind != fieldDescriptionHash && kind != fieldPayee &&
			kind != fieldExpiry && kind != fieldDescription:
			continue
		case seen[kind]:
			return nil, errors.New("a field that it has once is there twice")
		}
		seen[kind] = true
		raw := pack(value, false)
		switch kind {
		case fieldHash:
			copy(i.PaymentHash[:], raw)
		case fieldSecret:
			i.PaymentSecret = (*[32]byte)(raw)
		case fieldDescriptionHash:
			i.DescriptionHash = (*[32]byte)(raw)
		case fieldPayee:
			stated = raw
		case fieldDescription:
			if !utf8.Valid(raw) {
				return nil, errors.New("its description is no UTF-8")
			}
			i.Description = string(raw)
		case fieldExpiry:
			seconds, ok := number(value)
			if !ok || seconds > int64(longestExpiry/time.Second) {
				seconds = int64(longestExpiry / time.Second)
			}
			i.Expiry = time.Duration(seconds) * time.Second
		}
	}
	if !seen[fieldHash] {
		return nil, errors.New("it has no payment hash")
	}
	return stated, nil
}

// signer is who signed: the payee that is stated, or the one that follows from
// the signature.
func signer(stated, signature []byte, digest [32]byte) (payee [33]byte, _ error) {
	wrong := errors.New("its signature is wrong")
	if recovery := signature[64]; recovery > 3 {
		return payee, wrong
	}
	if stated != nil {
		key, err := secp256k1.ParsePubKey(stated)
		if err != nil {
			return payee, errors.New("its payee is no public key")
		}
		var r, s secp256k1.ModNScalar
		if r.SetByteSlice(signature[:32]) || s.SetByteSlice(signature[32:64]) || r.IsZero() || s.IsZero() {
			return payee, wrong
		}
		if !ecdsa.NewSignature(&r, &s).Verify(digest[:], key) {
			return payee, wrong
		}
		return [33]byte(stated), nil
	}
	const compressed = 31
	key, _, err := ecdsa.RecoverCompact(append([]byte{compressed + signature[64]}, signature[:64]...), digest[:])
	if err != nil {
		return payee, wrong
	}
	return [33]byte(key.SerializeCompressed()), nil
}

// Encode writes an invoice and signs it. Its payee is the key's owner, whatever
// i.Payee says.
func Encode(i Invoice, key *secp256k1.PrivateKey) (string, error) {
	var network string
	for prefix, n := range prefixes {
		if n == i.Network {
			network = prefix
		}
	}
	at := i.CreatedAt.Unix()
	switch {
	case network == "":
		return "", fmt.Errorf("invoice: %q is no network", i.Network)
	case i.AmountMsat < 0 || i.AmountMsat > MaxAmountMsat:
		return "", errors.New("invoice: there is no such amount")
	case at < 0 || at >= 1<<35 || i.Expiry < 0:
		return "", errors.New("invoice: its times cannot be written")
	case len(i.Description) > 639 || !utf8.ValidString(i.Description):
		return "", errors.New("invoice: its description is no UTF-8 of at most 639 bytes")
	}
	hrp := "ln" + network + amountText(i.AmountMsat)
	data := digits(at, timestampSize)
	add := func(kind byte, groups []byte) {
		data = append(data, kind, byte(len(groups)>>5), byte(len(groups)&31))
		data = append(data, groups...)
	}
	if i.PaymentSecret != nil {
		add(fieldSecret, unpack(i.PaymentSecret[:]))
	}
	add(fieldHash, unpack(i.PaymentHash[:]))
	if i.DescriptionHash != nil {
		add(fieldDescriptionHash, unpack(i.DescriptionHash[:]))
	} else {
		add(fieldDescription, unpack([]byte(i.Description)))
	}
	if i.Expiry != 0 && i.Expiry != defaultExpiry {
		add(fieldExpiry, digits(int64(i.Expiry/time.Second), 1))
	}
	if i.PaymentSecret != nil {
		add(fieldFinalCLTV, digits(defaultFinal, 1))
		add(fieldFeatures, digits(secretFeatures, 1))
	}
	digest := sha256.Sum256(append([]byte(hrp), pack(data, true)...))
	compact := ecdsa.SignCompact(key, digest[:], true)
	signature := append(compact[1:], (compact[0]-27)&3)
	return bech32(hrp, append(data, unpack(signature)...)), nil
}

// amountText is an amount in its shortest form.
func amountText(msat int64) string {
	if msat == 0 {
		return ""
	}
	for _, u := range []struct {
		unit string
		msat int64
	}{{"", 100_000_000_000}, {"m", 100_000_000}, {"u", 100_000}, {"n", 100}} {
		if msat%u.msat == 0 {
			return strconv.FormatInt(msat/u.msat, 10) + u.unit
		}
	}
	return strconv.FormatInt(msat, 10) + "0p"
}
