package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func output(without string) string {
	var b strings.Builder
	for _, id := range wanted {
		if id != without {
			fmt.Fprintf(&b, "    attacks_test.go:48: attack\t%s\tsomething\t401 unauthorized\tTestX\n", id)
		}
	}
	return b.String()
}

func TestATableIsPrintedInTheOrderOfIDs(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, run(strings.NewReader(output("")+"ok\n"), &out))
	require.Less(t, strings.Index(out.String(), "A9 "), strings.Index(out.String(), "A10 "))
	require.Contains(t, out.String(), "48 attacks of 48 kinds refused")
}

func TestAFailedOrMissingTestIsAnError(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.ErrorContains(t, run(strings.NewReader(output("")+"--- FAIL: TestA01 (0.1s)\n"), &out), "TestA01")
	require.ErrorContains(t, run(strings.NewReader(output("A13")), &out), "A13")
	require.ErrorContains(t, run(strings.NewReader(""), &out), "A1")
	require.ErrorContains(t, run(strings.NewReader("FAIL\tpackage [build failed]\n"), &out), "build failed")
}
