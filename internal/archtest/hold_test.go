package archtest

import (
	"path/filepath"
	"strings"
	"testing"
)

// Who can make a hold can spend without a reservation, so the executor alone may.
func TestOnlyTheExecutorMakesHolds(t *testing.T) {
	t.Parallel()
	makers := map[string]string{"HoldByExecutor": "a reservation"}
	for _, p := range list(t) {
		path := strings.TrimPrefix(p.ImportPath, Module)
		if from, _ := room(path); from == "executor" || arrows[from] == "*" {
			continue
		}
		for _, f := range p.GoFiles {
			for _, c := range callsIn(t, path, filepath.Join(p.Dir, f), makers) {
				t.Errorf("%s makes a hold without a reservation: take one from the call's Purse", c.Where)
			}
		}
	}
}
