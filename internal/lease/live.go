package lease

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// Live says whether an executor holds the run at this moment.
func Live(ctx context.Context, q db.DBTX, key uuid.UUID) (bool, error) {
	live, err := db.New(q).RunLeaseIsLive(ctx, key)
	if err != nil {
		return false, fmt.Errorf("look at the lease: %w", err)
	}
	return live, nil
}
