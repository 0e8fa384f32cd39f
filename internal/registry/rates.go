package registry

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// RatesOf are the rates that an owner's tool specs declare: of the newest version of
// each tool that is validated or published, when its manifest is active.
func RatesOf(ctx context.Context, q db.DBTX, owner string) ([]Rate, error) {
	stored, err := db.New(q).ToolSpecListManifests(ctx, owner)
	if err != nil {
		return nil, fmt.Errorf("list the rates of an owner: %w", err)
	}
	var rates []Rate
	for _, raw := range stored {
		var manifest map[string]any
		if err := json.Unmarshal(raw, &manifest); err != nil {
			return nil, fmt.Errorf("read a stored manifest: %w", err)
		}
		if r, ok := RateOf(manifest); ok {
			rates = append(rates, r)
		}
	}
	return rates, nil
}
