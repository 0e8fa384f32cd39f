package server_test

import (
	"testing"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }
