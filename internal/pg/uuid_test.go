package pg_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

func TestUUIDsTravelUnchanged(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	one, two := uuid.New(), uuid.New()

	var single uuid.UUID
	var text string
	var many []uuid.UUID
	var pointer, null *uuid.UUID
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT $1::uuid, $1::uuid::text, $2::uuid[], $3::uuid, $4::uuid",
		one, []uuid.UUID{one, two}, &two, (*uuid.UUID)(nil)).Scan(&single, &text, &many, &pointer, &null))
	require.Equal(t, one, single)
	require.Equal(t, one.String(), text)
	require.Equal(t, []uuid.UUID{one, two}, many)
	require.Equal(t, &two, pointer)
	require.Nil(t, null)

	err := pool.QueryRow(t.Context(), "SELECT NULL::uuid").Scan(&single)
	require.ErrorContains(t, err, "no uuid", "a NULL is not the zero uuid")
	require.Error(t, pool.QueryRow(t.Context(), "SELECT $1::uuid", "not one").Scan(&single))
}
