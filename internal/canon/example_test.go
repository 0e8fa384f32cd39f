package canon_test

import (
	"fmt"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

func ExampleJSON() {
	b, err := canon.JSON([]byte(`{ "b": 1.50, "a": "\u20ac" }`))
	fmt.Println(string(b), err)
	_, err = canon.JSON([]byte(`{"amounts":[9007199254740993]}`))
	fmt.Println(err)
	// Output:
	// {"a":"€","b":1.5} <nil>
	// canonical JSON: an integer beyond ±(2^53−1): send it as a string (at "/amounts/0", byte 12)
}

func ExampleHashJSON() {
	fmt.Println(canon.HashJSON(map[string]int{"b": 2, "a": 1}))
	// Output: sha256:43258cff783fe7036d8a43033f830adfc60ec037382473548ac742b888292777 <nil>
}
