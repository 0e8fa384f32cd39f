package runlog

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// What could not be told is told with what comes later, each log once and with
// its mark when any of its commits had work.
func TestWhatCouldNotBeToldIsToldLater(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	listener, err := pgx.ConnectConfig(t.Context(), pool.Config().ConnConfig)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close(context.WithoutCancel(t.Context()))) })
	_, err = listener.Exec(t.Context(), "LISTEN "+Channel)
	require.NoError(t, err)

	one, two := uuid.New(), uuid.New()
	n := newNotifier(pool, "sender")
	broken, cancel := context.WithCancel(t.Context())
	cancel()
	n.tell([]uuid.UUID{one}, map[uuid.UUID]bool{one: true})
	require.ErrorIs(t, n.send(broken), context.Canceled)
	n.tell([]uuid.UUID{one, two}, nil)
	require.NoError(t, n.send(t.Context()))

	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	told, err := listener.WaitForNotification(ctx)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"sender", workMark + one.String(), two.String()}, strings.Split(told.Payload, ","))
}

// A process that stops tells first what it has written.
func TestAStopTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	listener, err := pgx.ConnectConfig(t.Context(), pool.Config().ConnConfig)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close(context.WithoutCancel(t.Context()))) })
	_, err = listener.Exec(t.Context(), "LISTEN "+Channel)
	require.NoError(t, err)

	n := newNotifier(pool, "sender")
	quit := make(chan struct{})
	close(quit)
	key := uuid.New()
	n.tell([]uuid.UUID{key}, nil)
	require.NoError(t, n.run(quit))
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	told, err := listener.WaitForNotification(ctx)
	require.NoError(t, err)
	require.Equal(t, "sender,"+key.String(), told.Payload)
}
