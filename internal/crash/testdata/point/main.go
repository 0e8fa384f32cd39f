// Command point passes a point three times and says so.
package main

import (
	"fmt"
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
}
