package rig

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/devdb"
)

func TestADatabaseThatMayForgetIsRefused(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "oa-rig-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o711)) // the database's account passes through
	s, err := devdb.Start(t.Context(), devdb.Config{Dir: filepath.Join(dir, "db")})
	require.NoError(t, err)
	d := &Database{dir: filepath.Join(dir, "db"), server: s}
	d.relay, err = NewRelay()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	require.NoError(t, d.aim())
	require.ErrorContains(t, d.requireDurable(t.Context()), "fsync=off")
}

func TestAStreamIsReadInBlocksUntilDone(t *testing.T) {
	t.Parallel()
	var got []Block
	take := func(b Block) { got = append(got, b) }
	var waits []time.Duration
	wait := func(d time.Duration) { waits = append(waits, d) }
	err := ReadStream(strings.NewReader(": hello\nretry: 5\n\ndata: a\nid: 1\n\n: keep-alive\n\nid: 2\n\ndata: [DONE]\nid: 3\n\nid: 4\n\n"), take, wait)
	require.ErrorIs(t, err, ErrDone)
	require.Equal(t, []Block{{1, "data: a\nid: 1\n"}, {2, "id: 2\n"}, {3, "data: [DONE]\nid: 3\n"}}, got)
	require.Equal(t, []time.Duration{5 * time.Millisecond}, waits)

	got = nil
	err = ReadBlocks(strings.NewReader("data: a\nid: 1\n\ndata: b\nid: 2\n"), take)
	require.True(t, errors.Is(err, io.EOF) && len(got) == 1, "half a block is none: %v %v", got, err)
}
