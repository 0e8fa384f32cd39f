package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/mattn/go-isatty"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

// terminalTool is a tool that the first run's client, this program, carries out.
const terminalTool = "terminal.describe"

// firstRun shows a run to whoever has just started everything: over HTTP, as any
// client would.
type firstRun struct {
	c         config
	url, page string
	question  string // asked in place of what uses tools
	out       io.Writer
	in        io.Reader // where a person may be

	k     *client
	runID string
	told  teller
	names map[string]string // of tools, by toolCallId
	lines <-chan string     // what a person types; nil when nobody is there
}

// request is a run that may use the tools that it is to show.
func (f *firstRun) request() api.StartRunRequest {
	r := api.StartRunRequest{RunID: f.runID, ThreadID: "dev-" + f.runID}
	if f.question != "" {
		return r
	}
	r.ToolPolicy = &api.ToolPolicy{Allow: []string{"http.fetch", "timeline.search", terminalTool, exampleName + ".count"}}
	r.ClientTools = []api.ClientTool{{
		Name: terminalTool, Description: "Describes the terminal that the run is shown in.",
		InputSchema: map[string]any{"type": "object", "additionalProperties": false},
	}}
	return r
}

func (f *firstRun) asks() string {
	if f.question != "" {
		return f.question
	}
	return "Please do this, one by one:\n" +
		"  1. Fetch the page http://" + f.page + "/\n" +
		"  2. Search the timeline for lighthouse\n" +
		"  3. Describe the terminal\n" +
		"  4. Count the words of “The log is the only truth.”"
}

func (f *firstRun) show(ctx context.Context) error {
	keys, err := f.c.keyring()
	if err != nil {
		return err
	}
	f.k, err = newClient(f.url, signer{keys: keys, audience: f.c.Audience, who: principal{UserID: 1}, actor: "dev", scope: auth.Service})
	if err != nil {
		return err
	}
	f.runID, f.names = uuid.NewString(), map[string]string{}
	if atTerminal(f.in) {
		f.lines = typed(f.in)
	}
	question := f.asks()
	fmt.Fprintf(f.out, "run %s\n  you:       %s\n  assistant: ", f.runID, question)
	begun := time.Now()
	if err := f.k.startWith(ctx, f.request()); err != nil {
		return err
	}
	if err := f.k.say(ctx, f.runID, uuid.NewString(), question); err != nil {
		return err
	}
	f.told = teller{out: f.out, begun: begun}
	err = f.k.follow(ctx, f.runID, "", 0, func(p part) error { return f.part(ctx, p) })
	if err != nil {
		return err
	}
	fmt.Fprintf(f.out, "\n  (%d parts, the first text after %d ms, all after %d ms; the log has every fact)\n\n",
		f.told.parts, f.told.first.Milliseconds(), time.Since(begun).Milliseconds())
	return nil
}

// part shows a part, and does what a client has to do about it.
func (f *firstRun) part(ctx context.Context, p part) error {
	var said struct {
		Type, ToolCallID, ToolName, ErrorText string
		ProviderExecuted                      bool
		Input, Output                         json.RawMessage
		Data                                  struct{ ApprovalID, State, Title, ToolCallID string }
	}
	if err := json.Unmarshal([]byte(p.Data), &said); err != nil {
		return fmt.Errorf("part %d: %w", p.Seq, err)
	}
	line := func(what string) {
		f.told.parts++
		fmt.Fprintf(f.out, "\n  [%s] %s", said.Type, what)
	}
	switch said.Type {
	case "tool-input-available":
		f.names[said.ToolCallID] = said.ToolName
		line(said.ToolName + " " + short(said.Input))
		if said.ToolName == terminalTool && !said.ProviderExecuted {
			return f.describeTerminal(ctx, said.ToolCallID)
		}
	case "tool-output-available":
		line(f.names[said.ToolCallID] + " " + short(said.Output))
	case "tool-output-error":
		line(f.names[said.ToolCallID] + ": " + said.ErrorText)
	case "data-approval":
		line(strings.TrimSpace(said.Data.State + ": " + f.names[said.Data.ToolCallID] + " " + said.Data.Title))
		if said.Data.State == "pending" {
			return f.decide(ctx, said.Data.ApprovalID)
		}
	default:
		if said.Type == "text-start" && len(f.names) > 0 {
			fmt.Fprint(f.out, "\n  ")
		}
		return f.told.part(p)
	}
	return nil
}

// short is a value as it fits a line.
func short(v json.RawMessage) string {
	const most = 110
	if text := []rune(string(v)); len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(v)
}

// describeTerminal carries the client tool out: its result is a frame.
func (f *firstRun) describeTerminal(ctx context.Context, callID string) error {
	what := map[string]any{"system": runtime.GOOS, "interactive": f.lines != nil}
	fmt.Fprint(f.out, "\n      this program answers it, with a frame of type tool_result")
	return f.k.frame(ctx, f.runID, api.AppendFrameRequest{
		FrameID: "result-of-" + callID, Type: "tool_result", Payload: map[string]any{"toolCallId": callID, "output": what},
	})
}

// decide has the person at the terminal decide; when nobody is there it approves.
func (f *firstRun) decide(ctx context.Context, approvalID string) error {
	at := ""
	if f.url != "http://"+defaultAddr {
		at = " --url " + f.url
	}
	fmt.Fprintf(f.out, "\n      elsewhere: bin/openagents-runtime approval approve %s%s", approvalID, at)
	decision := api.DecideApprovalRequestDecisionApproved
	if f.lines == nil {
		fmt.Fprint(f.out, "\n      nobody is at a terminal to be asked, so this program approves it itself")
	} else {
		var err error
		if decision, err = f.askPerson(ctx, approvalID); err != nil || decision == "" {
			return err
		}
	}
	r, err := f.k.DecideApprovalWithResponse(ctx, approvalID, &api.DecideApprovalParams{}, api.DecideApprovalRequest{Decision: decision})
	if err != nil {
		return err
	}
	if r.StatusCode() != http.StatusOK && r.StatusCode() != http.StatusConflict { // decided elsewhere meanwhile: the stream tells how
		return answerError(r.StatusCode(), r.GetBody())
	}
	return nil
}

// askPerson waits until somebody says yes or no here, or has decided elsewhere,
// which is no decision of this program's.
func (f *firstRun) askPerson(ctx context.Context, approvalID string) (api.DecideApprovalRequestDecision, error) {
	fmt.Fprint(f.out, "\n      do you approve? [y/N] ")
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case said, there := <-f.lines:
			if said = strings.ToLower(strings.TrimSpace(said)); there && (said == "y" || said == "yes") {
				return api.DecideApprovalRequestDecisionApproved, nil
			}
			return api.DecideApprovalRequestDecisionRejected, nil
		case <-tick.C:
			r, err := f.k.GetApprovalWithResponse(ctx, approvalID, &api.GetApprovalParams{})
			if err != nil {
				return "", err
			}
			if r.JSON200 != nil && r.JSON200.State != api.ApprovalStatePending {
				fmt.Fprint(f.out, "(it was decided elsewhere)")
				return "", nil
			}
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// atTerminal says whether a person can be asked.
func atTerminal(in io.Reader) bool {
	file, ok := in.(*os.File)
	return ok && isatty.IsTerminal(file.Fd())
}

// typed reads lines, one ahead at the most. It ends with the process: a terminal
// cannot be left unread.
func typed(in io.Reader) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return lines
}
