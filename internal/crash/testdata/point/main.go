// Command point passes a point three times and says so. With LINGER set it lives
// until its input ends.
package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/crash"
)

func main() {
	for n := range 3 {
		crash.At("other")
		crash.At("here")
		fmt.Println("passed", n+1)
	}
	fmt.Println("clock", crash.Now().Sub(time.Now()).Round(time.Second))
	if os.Getenv("LINGER") != "" {
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			panic(err)
		}
	}
}
