package egress

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Go never proxies loopback, where tests live, so the setting itself is looked at.
func TestTheEnvironmentsProxyIsNotAsked(t *testing.T) {
	t.Parallel()
	require.Nil(t, transport(Config{}).Proxy)
}
