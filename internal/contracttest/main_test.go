package contracttest_test

import (
	"flag"
	"testing"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

var (
	update = flag.Bool("update", false, "write the answers of the fixtures anew")
	seed   = flag.Uint64("seed", 0, "seed of the fuzz; 0 takes a new one")
)

func TestMain(m *testing.M) { dbtest.Main(m) }
