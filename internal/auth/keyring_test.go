package auth_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

func TestParseKeyringRefusesWhatIsWeakOrUnclear(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"":                                 "empty",
		"  \n":                             "empty",
		secret1:                            "kid:secret",
		":" + secret1:                      "[A-Za-z0-9._-]",
		"../k:" + secret1:                  "[A-Za-z0-9._-]",
		"k1:":                              "k1: its secret has 0 bytes",
		"k1:" + secret1[:31]:               "k1: its secret has 31 bytes",
		"k1:" + secret1 + ",":              "key 2",
		"k1:" + secret1 + ",k1:" + secret2: "k1 comes twice",
		"k1:" + secret1 + " " + secret2:    "visible ASCII",
		"k1:" + secret1 + "é":              "visible ASCII",
		"k1:" + strings.Repeat("\x00", 32): "visible ASCII",
		"k1:development-only-secret-known-to-everybody": "development secret",
	} {
		_, err := auth.ParseKeyring(text)
		require.ErrorContains(t, err, says, "%q", text)
		require.NotContains(t, err.Error(), "of-the-tests", "no error shows a secret")
	}
	k, err := auth.ParseKeyring(" new:" + secret1 + ", old.1:" + secret2 + "\n")
	require.NoError(t, err)
	require.Equal(t, []string{"new", "old.1"}, k.IDs())
	require.Equal(t, []string{"dev"}, auth.DevKeyring().IDs())
}

func TestAKeyringNeverShowsItsSecrets(t *testing.T) {
	t.Parallel()
	k := keyring(t, "k1:"+secret1)
	v := auth.Verifier{Keys: k}
	b, err := json.Marshal(k)
	require.NoError(t, err)
	for _, text := range []string{
		fmt.Sprint(k), fmt.Sprintf("%+v %#v %s %v %d %x", k, k, k, &k, k, k), string(b), k.LogValue().String(),
		fmt.Sprintf("%+v", v), fmt.Sprintf("%v", v),
	} {
		require.NotContains(t, text, "of-the-tests")
		require.NotContains(t, text, fmt.Sprintf("%x", secret1))
		require.NotContains(t, text, fmt.Sprint([]byte(secret1)))
	}
}

// Two processes move from one secret to the next without refusing anybody.
func TestRotationOverlaps(t *testing.T) {
	t.Parallel()
	older, newer := "k1:"+secret1, "k2:"+secret2
	stages := []auth.Keyring{keyring(t, older), keyring(t, older, newer), keyring(t, newer, older), keyring(t, newer)}
	for i, signing := range stages {
		for j, verifying := range stages {
			v := verifier(t)
			v.Keys = verifying
			_, err := v.Verify(t.Context(), newCall().sign(t, signing).Request)
			if !slices.Contains(verifying.IDs(), signing.IDs()[0]) {
				refused(t, err, auth.InvalidSignature)
				require.NotEqual(t, 1, max(i-j, j-i), "neighbouring stages understand one another")
				continue
			}
			require.NoError(t, err, "stage %d to %d", i, j)
		}
	}
}
