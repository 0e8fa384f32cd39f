package crash_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// build compiles the program that passes points.
func build(t *testing.T, tags string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "point")
	out, err := exec.Command("go", "build", "-tags", tags, "-o", path, "./testdata/point").CombinedOutput()
	require.NoError(t, err, string(out))
	return path
}

// run runs it and returns what it said and the signal that ended it, 0 for none.
func run(t *testing.T, path string, env ...string) (string, syscall.Signal) {
	t.Helper()
	cmd := exec.Command(path)
	cmd.Env = env
	var out bytes.Buffer
	cmd.Stdout = &out
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		require.NoError(t, err)
		return out.String(), 0
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	require.True(t, ok)
	if !status.Signaled() {
		return out.String(), syscall.Signal(-1)
	}
	return out.String(), status.Signal()
}

const all = "passed 1\npassed 2\npassed 3\n"

func TestACrashBuildDiesAtTheNamedPassingOfItsPoint(t *testing.T) {
	t.Parallel()
	path := build(t, "crash")
	for env, want := range map[string]string{
		"RUNTIME_CRASH_AT=here":   "",
		"RUNTIME_CRASH_AT=here:2": "passed 1\n",
		"RUNTIME_CRASH_AT=here:3": "passed 1\npassed 2\n",
	} {
		out, signal := run(t, path, env)
		require.Equal(t, syscall.SIGKILL, signal, env)
		require.Equal(t, want, out, env)
	}
	for _, env := range []string{"RUNTIME_CRASH_AT=", "RUNTIME_CRASH_AT=elsewhere", "RUNTIME_CRASH_AT=here:4"} {
		out, signal := run(t, path, env)
		require.Zero(t, signal, env)
		require.Equal(t, all+"clock 0s\n", out, env)
	}
}

func TestACrashBuildStopsAtItsPointUntilItIsContinued(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(build(t, "crash"))
	cmd.Env = []string{"RUNTIME_CRASH_STOP_AT=here:2"}
	var out bytes.Buffer
	cmd.Stdout = &out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var status syscall.WaitStatus
	_, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
	require.NoError(t, err)
	require.True(t, status.Stopped() && status.StopSignal() == syscall.SIGSTOP, "%v", status)
	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	require.NoError(t, cmd.Wait())
	require.Equal(t, all+"clock 0s\n", out.String())
}

func TestACrashBuildSaysWhenItGotNoProcessor(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(build(t, "crash"))
	cmd.Env = []string{"LINGER=1"}
	said, err := cmd.StderrPipe()
	require.NoError(t, err)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	_, err = out.Read(make([]byte, 1))
	require.NoError(t, err, "it is at work")
	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	<-time.After(300 * time.Millisecond) // that it shall notice
	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	var ms, until int64
	for ms < 200 { // a busy machine may have made it stand still before
		_, err = fmt.Fscanf(said, "stood still %d ms until %d\n", &ms, &until)
		require.NoError(t, err)
	}
	require.InDelta(t, time.Now().UnixMilli(), until, 5000)
	require.NoError(t, in.Close())
	_, err = io.Copy(io.Discard, out)
	require.NoError(t, err)
	require.NoError(t, cmd.Wait())
}

func TestACrashBuildEatsUntilThereIsNothingLeft(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(build(t, "crash"))
	cmd.Env = []string{"RUNTIME_CRASH_EAT_AT=here:2", "LINGER=1"}
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe() // which keeps it waiting
	require.NoError(t, err)
	t.Cleanup(func() { _ = in.Close() })
	require.Error(t, cmd.Run())
	require.Regexp(t, "out of memory|cannot allocate memory", said.String())
}

func TestACrashBuildRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	path := build(t, "crash")
	for _, env := range []string{"RUNTIME_CRASH_AT=here:0", "RUNTIME_CRASH_AT=here:x", "RUNTIME_CRASH_STOP_AT=here:-1", "RUNTIME_CRASH_EAT_AT=here:y", "RUNTIME_CRASH_CLOCK_OFFSET=soon"} {
		out, signal := run(t, path, env)
		require.Equal(t, syscall.Signal(-1), signal, env)
		require.Empty(t, out, env)
	}
}

func TestACrashBuildsClockIsAsWrongAsItIsTold(t *testing.T) {
	t.Parallel()
	out, signal := run(t, build(t, "crash"), "RUNTIME_CRASH_CLOCK_OFFSET=-90m")
	require.Zero(t, signal)
	require.Equal(t, all+"clock -1h30m0s\n", out)
}

func TestAnyOtherBuildNeitherDiesNorErrs(t *testing.T) {
	t.Parallel()
	out, signal := run(t, build(t, ""), "RUNTIME_CRASH_AT=here", "RUNTIME_CRASH_CLOCK_OFFSET=1h")
	require.Zero(t, signal)
	require.Equal(t, all+"clock 0s\n", out)
}

func TestAnyOtherBuildPaysNothing(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "build", "-gcflags=-m", ".").CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), "can inline At")
}
