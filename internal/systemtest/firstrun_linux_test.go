package systemtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// shownOfTools are the lines about tools that the first run shows when its approval
// is decided as said, in their order.
func shownOfTools(decided, end string) []string {
	return []string{
		`\[tool-input-available\] http\.fetch \{"url":"http://127\.0\.0\.1:\d+/"\}`,
		`\[tool-output-available\] http\.fetch \{.*"contentType":"text/html"`,
		`\[tool-input-available\] timeline\.search \{"query":"lighthouse"\}`,
		`\[tool-output-available\] timeline\.search \{"hits":\[\{`,
		`\[tool-input-available\] terminal\.describe \{\}`,
		`\[tool-output-available\] terminal\.describe \{"interactive":(true|false),"system":"linux"\}`,
		`\[tool-input-available\] example\.count \{"text":"The log is the only truth\."\}`,
		`\[data-approval\] pending: example\.count `,
		`elsewhere: bin/openagents-runtime approval approve appr_[0-9a-f]+ --url http://\S+`,
		`\[data-approval\] ` + decided + `: example\.count`,
		end,
		`According to http_fetch: .*The lighthouse`,
		`\(\d+ parts, the first text after `,
	}
}

const counted = `\[tool-output-available\] example\.count \{"structured":\{"characters":26,"words":6\}\}`

func requireInOrder(t *testing.T, out string, wanted ...string) {
	t.Helper()
	rest := out
	for _, w := range wanted {
		at := regexp.MustCompile(w).FindStringIndex(rest)
		require.NotNil(t, at, "%s is missing in what is left:\n%s\nof:\n%s", w, rest, out)
		rest = rest[at[1]:]
	}
}

// Whoever starts everything and is not at a terminal sees a run use every kind of
// tool, and how the approval that it gives itself is given otherwise.
func TestTheFirstRunUsesTools(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	p := launch(t, nil, append(d.env(), "DATABASE_URL="+dbtest.URL(t)), "dev")
	p.until(t, ready)
	requireInOrder(t, p.out.String(), `tools: +example\.count, .*timeline\.search`,
		`reach: +on this machine tools reach 127\.0\.0\.1:\d+, `+regexp.QuoteMeta(d.ops)+` and nothing else`)
	requireInOrder(t, p.out.String(), append([]string{`nobody is at a terminal`}, shownOfTools("approved", counted)[9:]...)...)
	requireInOrder(t, p.out.String(), shownOfTools("approved", counted)...)

	// What the run could not reach nobody reaches: the guard is as it was.
	other := freeAddress(t)
	fetched := finish(t, nil, "Fetch the page http://"+other+"/\n", "chat", "--url", "http://"+d.api)
	require.Contains(t, fetched.out, "(the call failed: ")
	p.signal(t, os.Interrupt)
	require.Equal(t, 0, p.wait(t), p.out)
}

// At a terminal the person is asked, and may also decide from another one.
func TestTheFirstRunAsksWhoIsAtTheTerminal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		decide       func(t *testing.T, d *desk, terminal *os.File, approvalID string)
		decided, end string
	}{
		"yes": {func(t *testing.T, _ *desk, terminal *os.File, _ string) { typeIn(t, terminal, "y\n") }, "approved", counted},
		"no":  {func(t *testing.T, _ *desk, terminal *os.File, _ string) { typeIn(t, terminal, "\n") }, "rejected", `\[tool-output-error\] example\.count: `},
		"elsewhere": {func(t *testing.T, d *desk, _ *os.File, approvalID string) {
			got := finish(t, nil, "", "approval", "approve", approvalID, "--url", "http://"+d.api)
			require.Equal(t, 0, got.code, got.errors)
		}, "approved", counted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, nil)
			near, far := newTerminal(t)
			p := launchAt(t, far, append(d.env(), "DATABASE_URL="+dbtest.URL(t)), "dev")
			asked := p.until(t, `approval approve (appr_[0-9a-f]+) [^\n]+\n +do you approve\? \[y/N\]`)
			c.decide(t, d, near, asked[1])
			p.until(t, ready)
			requireInOrder(t, p.out.String(), shownOfTools(c.decided, c.end)...)
			require.NotContains(t, p.out.String(), "nobody is at a terminal")
			p.signal(t, os.Interrupt)
			require.Equal(t, 0, p.wait(t), p.out)
		})
	}
}

// newTerminal makes a terminal: what is written to near, a program reads from far.
func newTerminal(t *testing.T) (near, far *os.File) {
	t.Helper()
	near, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err, "the test needs pseudo terminals: mount devpts")
	t.Cleanup(func() { require.NoError(t, near.Close()) })
	require.NoError(t, unix.IoctlSetPointerInt(int(near.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(near.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	far, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, far.Close()) })
	return near, far
}

func typeIn(t *testing.T, terminal *os.File, text string) {
	t.Helper()
	_, err := terminal.WriteString(text)
	require.NoError(t, err)
}

// launchAt is launch with a terminal to read from.
func launchAt(t *testing.T, terminal *os.File, env []string, args ...string) *process {
	t.Helper()
	return launchWith(t, func(cmd *exec.Cmd) { cmd.Stdin = terminal }, env, args...)
}
