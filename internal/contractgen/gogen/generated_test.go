package gogen_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// TestEveryStoredPayloadSurvivesItsGoType decodes the fixture of each event
// type and version and encodes it again: no member may get lost on the way.
func TestEveryStoredPayloadSurvivesItsGoType(t *testing.T) {
	t.Parallel()
	for _, typ := range event.Types() {
		require.Positive(t, event.Latest(typ))
		for version := 1; version <= event.Latest(typ); version++ {
			stored, err := os.ReadFile(filepath.Join(moduleRoot, "openapi/fixtures/events", fmt.Sprintf("%s.v%d.json", typ, version)))
			require.NoError(t, err)
			e, err := event.Decode(typ, version, stored)
			require.NoError(t, err)
			require.Equal(t, typ, e.EventType())
			require.Equal(t, version, e.EventVersion())
			want, err := canon.JSON(stored)
			require.NoError(t, err)
			got, err := canon.Marshal(e)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got), "%s version %d", typ, version)
		}
	}
}

func TestUnknownEventsAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ     string
		version int
	}{{"run.imagined", 1}, {event.TypeRunStarted, 99}, {event.TypeRunStarted, 0}} {
		_, err := event.Decode(c.typ, c.version, []byte(`{}`))
		require.ErrorIs(t, err, event.ErrUnknown)
	}
	require.Zero(t, event.Latest("run.imagined"))
	_, err := event.Decode(event.TypeRunStarted, 1, []byte(`{"message_id": 7}`))
	require.Error(t, err)
	require.False(t, errors.Is(err, event.ErrUnknown))
}

// TestOperationsAreTheRoutesThatAreServed asks the generated router about
// every operation of the table.
func TestOperationsAreTheRoutesThatAreServed(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	api.HandlerFromMux(struct{ api.ServerInterface }{}, mux)
	seen := map[string]bool{}
	for _, op := range api.Operations() {
		path := strings.NewReplacer("{runId}", "r", "{threadId}", "t").Replace(op.Path)
		_, pattern := mux.Handler(httptest.NewRequest(op.Method, path, nil))
		require.Equal(t, op.Pattern(), pattern, op.ID)
		require.False(t, seen[op.ID], op.ID)
		seen[op.ID] = true
		require.NotEmpty(t, op.Errors, op.ID)
		require.Contains(t, []api.Scope{"read", "service", "operator"}, op.Scope, op.ID)
	}
	require.NotEmpty(t, seen)
}

func TestEveryErrorCodeHasAStatus(t *testing.T) {
	t.Parallel()
	require.NotEmpty(t, api.ErrorCodes())
	for _, code := range api.ErrorCodes() {
		require.True(t, code.Valid())
		require.NotEmpty(t, http.StatusText(code.Status()), code)
	}
	require.False(t, api.ErrorCode("imagined").Valid())
	require.Zero(t, api.ErrorCode("imagined").Status())
}

func TestSignaturesCarryTheirSchemasAndDigests(t *testing.T) {
	t.Parallel()
	require.NotEmpty(t, ds.Contracts())
	for _, c := range ds.Contracts() {
		for digest, document := range map[string][]byte{c.InputSchemaHash: c.InputSchema, c.OutputSchemaHash: c.OutputSchema} {
			canonical, err := canon.JSON(document)
			require.NoError(t, err)
			require.Equal(t, string(canonical), string(document), c.ID)
			require.Equal(t, digest, canon.Hash(document), c.ID)
			schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
			require.NoError(t, err)
			compiler := jsonschema.NewCompiler()
			require.NoError(t, compiler.AddResource("schema.json", schema))
			_, err = compiler.Compile("schema.json")
			require.NoError(t, err, "the schema needs no other document: %s", c.ID)
		}
		require.Contains(t, string(c.Document), c.ID)
	}
}
