package registry

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
)

// RatesOf are the rates that an owner's tool specs declare: of the newest version of
// each tool that is validated or published, when its manifest is active.
func RatesOf(ctx context.Context, q db.DBTX, owner string) ([]Rate, error) {
	stored, err := db.New(q).ToolSpecListWithManifest(ctx, owner)
	if err != nil {
		return nil, fmt.Errorf("list the rates of an owner: %w", err)
	}
	var rates []Rate
	for _, raw := range stored {
		var spec ds.ToolSpecV1
		if err := json.Unmarshal(raw, &spec); err != nil {
			return nil, fmt.Errorf("read a stored tool spec: %w", err)
		}
		if r, ok := RateOf(spec.IntegrationManifest); ok {
			rates = append(rates, r)
		}
	}
	return rates, nil
}
