package auth_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

func ExampleSign() {
	keys, err := auth.ParseKeyring("k1:an-example-secret-of-32-bytes-or-more")
	if err != nil {
		fmt.Println(err)
		return
	}
	user := int64(42)
	body := []byte(`{"runId":"r1","threadId":"t1"}`)
	token, err := auth.Sign(keys, auth.Claims{
		Nonce: "nonce-of-the-example", Audience: "openagents-runtime", Scope: auth.Service, Actor: "laravel",
		Method: "POST", Target: "/internal/v1/runs", BodySHA256: auth.BodyHash(body), UserID: &user,
	}, time.Unix(1_771_459_200, 0))
	if err != nil {
		fmt.Println(err)
		return
	}
	parts := strings.Split(token, ".")
	fmt.Println(parts[0])
	fmt.Println(parts[1][:44] + "…")
	fmt.Println(parts[2])
	// Output:
	// v1
	// eyJhY3RvciI6ImxhcmF2ZWwiLCJhdWQiOiJvcGVuYWdl…
	// ipj4tK63KYVoITUrByMBlcf7dQdDy-H3r_j-1xuZ3oI
}
