package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/user"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

// target is the service and the principal that client commands work with.
type target struct {
	url string
	who principal
}

func (t *target) flags(cmd *cobra.Command) {
	url := os.Getenv("RUNTIME_URL")
	if url == "" {
		url = "http://" + defaultAddr
	}
	f := cmd.PersistentFlags()
	f.StringVar(&t.url, "url", url, "the service's address (RUNTIME_URL)")
	f.Int64Var(&t.who.UserID, "user", 1, "the user to act for; 0 for none")
	f.StringVar(&t.who.GuestScope, "guest", "", "the guest scope to act for")
}

// signer signs with RUNTIME_SIGNATURE_SECRET, or else as `dev` does.
func (t *target) signer() (signer, error) {
	s := signer{keys: auth.DevKeyring(), audience: os.Getenv("RUNTIME_AUDIENCE"), who: t.who, actor: "cli", scope: auth.Operator}
	if secret := os.Getenv("RUNTIME_SIGNATURE_SECRET"); secret != "" {
		var err error
		if s.keys, err = auth.ParseKeyring(secret); err != nil {
			return s, fmt.Errorf("RUNTIME_SIGNATURE_SECRET: %w", err)
		}
	}
	if s.audience == "" {
		s.audience = "openagents-runtime"
	}
	if u, err := user.Current(); err == nil {
		s.actor = "cli:" + u.Username
	}
	return s, nil
}

func (t *target) client() (*client, error) {
	s, err := t.signer()
	if err != nil {
		return nil, err
	}
	return newClient(t.url, s)
}

// clientCommands talk to a running service: one for each operation, and chat.
func clientCommands() []*cobra.Command {
	t := &target{}
	runs := &cobra.Command{Use: "run", Short: "Start, follow and cancel runs of a running service"}
	runs.AddCommand(t.runStart(), t.runGet(), t.runList(), t.runFrame(), t.runStream(), t.runEvents(), t.runCancel(), t.runProbe())
	thread := &cobra.Command{Use: "thread", Short: "Look at threads of a running service"}
	thread.AddCommand(t.threadState())
	commands := []*cobra.Command{t.chat(), runs, thread, t.toolCommands(), t.approvalCommands(), t.spendCommands(), t.toolSpecCommands(), t.skillCommands(), t.health(), t.sign()}
	for _, c := range commands {
		t.flags(c)
	}
	return commands
}

// show prints an answer's JSON, or fails with what it says.
func show(cmd *cobra.Command, status int, body []byte, err error) error {
	if err != nil {
		return err
	}
	if status >= http.StatusBadRequest {
		return answerError(status, body)
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("the answer is not JSON: %w", err)
	}
	out := json.NewEncoder(cmd.OutOrStdout())
	out.SetIndent("", "  ")
	return out.Encode(v)
}

// with makes a command whose work needs the client.
func (t *target) with(cmd *cobra.Command, work func(cmd *cobra.Command, c *client, args []string) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := t.client()
		if err != nil {
			return err
		}
		cmd.SetContext(withTrace(cmd.Context()))
		return work(cmd, c, args)
	}
	return cmd
}

func (t *target) health() *cobra.Command {
	return t.with(&cobra.Command{Use: "health", Short: "Ask a service whether it can do its work", Args: cobra.NoArgs},
		func(cmd *cobra.Command, c *client, _ []string) error {
			r, err := c.HealthWithResponse(cmd.Context(), &api.HealthParams{})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
}

func (t *target) runStart() *cobra.Command {
	var thread string
	var keepOpen bool
	cmd := t.with(&cobra.Command{Use: "start [RUN_ID]", Short: "Start a run", Args: cobra.MaximumNArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			runID := uuid.NewString()
			if len(args) > 0 {
				runID = args[0]
			}
			if thread == "" {
				thread = "thread-" + runID
			}
			if err := c.start(cmd.Context(), runID, thread, keepOpen); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), runID)
			return nil
		})
	cmd.Flags().StringVar(&thread, "thread", "", "the thread it belongs to; its own when empty")
	cmd.Flags().BoolVar(&keepOpen, "keep-open", false, "wait for more frames instead of completing")
	return cmd
}

func (t *target) runGet() *cobra.Command {
	return t.with(&cobra.Command{Use: "get RUN_ID", Short: "Show a run", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.GetRunWithResponse(cmd.Context(), args[0], &api.GetRunParams{})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
}

func (t *target) runList() *cobra.Command {
	var thread, status, page string
	var limit int32
	cmd := t.with(&cobra.Command{Use: "list", Short: "List runs, newest first", Args: cobra.NoArgs},
		func(cmd *cobra.Command, c *client, _ []string) error {
			p := &api.ListRunsParams{Limit: &limit, ThreadID: optional(thread), PageToken: optional(page)}
			if status != "" {
				s := api.RunStatus(status)
				p.Status = &s
			}
			r, err := c.ListRunsWithResponse(cmd.Context(), p)
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	cmd.Flags().StringVar(&thread, "thread", "", "only this thread's")
	cmd.Flags().StringVar(&status, "status", "", "only in this status")
	cmd.Flags().StringVar(&page, "page", "", "the nextPageToken of the page before")
	cmd.Flags().Int32Var(&limit, "limit", 20, "runs per page, 1 to 200")
	return cmd
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (t *target) runFrame() *cobra.Command {
	var frameID, kind, payload, mode string
	cmd := t.with(&cobra.Command{Use: "frame RUN_ID [TEXT]", Short: "Append a frame: a user's text, or --type with --payload", Args: cobra.RangeArgs(1, 2)},
		func(cmd *cobra.Command, c *client, args []string) error {
			f := api.AppendFrameRequest{FrameID: frameID, Type: kind, Payload: map[string]any{}}
			if mode != "" {
				m := api.FrameMode(mode)
				f.Mode = &m
			}
			switch {
			case len(args) == 2 && payload == "":
				f.Payload["text"] = args[1]
			case len(args) == 1 && payload != "":
				if err := json.Unmarshal([]byte(payload), &f.Payload); err != nil {
					return fmt.Errorf("--payload must be a JSON object: %w", err)
				}
			default:
				return errors.New("give either TEXT or --payload")
			}
			r, err := c.AppendFrameWithResponse(cmd.Context(), args[0], &api.AppendFrameParams{}, f)
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	cmd.Flags().StringVar(&frameID, "id", uuid.NewString(), "the frameId; the same id is the same frame")
	cmd.Flags().StringVar(&kind, "type", "user_message", "the frame's type")
	cmd.Flags().StringVar(&payload, "payload", "", "the payload as a JSON object")
	cmd.Flags().StringVar(&mode, "mode", "", "when the run is at work: enqueue, steer, interrupt or reject")
	return cmd
}

func (t *target) runStream() *cobra.Command {
	var cursor int64
	var raw bool
	var parts string
	cmd := t.with(&cobra.Command{Use: "stream RUN_ID", Short: "Follow a run until it ends", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			out := cmd.OutOrStdout()
			told := &teller{out: out}
			f := told.part
			if raw {
				f = func(p part) error {
					_, err := io.WriteString(out, p.Raw)
					return err
				}
			}
			err := c.follow(cmd.Context(), args[0], parts, cursor, f)
			if !raw {
				fmt.Fprintln(out)
			}
			return err
		})
	cmd.Flags().Int64Var(&cursor, "cursor", 0, "the seq to go on after")
	cmd.Flags().BoolVar(&raw, "raw", false, "print the parts as clients get them")
	cmd.Flags().StringVar(&parts, "parts", "", "which parts to ask for: ai5, ai6 or ai7")
	return cmd
}

func (t *target) runEvents() *cobra.Command {
	var cursor int64
	var limit int32
	cmd := t.with(&cobra.Command{Use: "events RUN_ID", Short: "Print a page of a run's log", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.ListRunEventsWithResponse(cmd.Context(), args[0], &api.ListRunEventsParams{Cursor: &cursor, Limit: &limit})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	cmd.Flags().Int64Var(&cursor, "cursor", 0, "the seq to go on after")
	cmd.Flags().Int32Var(&limit, "limit", 200, "events per page, 1 to 1000")
	return cmd
}

func (t *target) runCancel() *cobra.Command {
	var reason string
	cmd := t.with(&cobra.Command{Use: "cancel RUN_ID", Short: "Ask a run to stop", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.CancelRunWithResponse(cmd.Context(), args[0], &api.CancelRunParams{}, api.CancelRunRequest{Reason: optional(reason)})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	cmd.Flags().StringVar(&reason, "reason", "", "a sentence for people")
	return cmd
}

func (t *target) runProbe() *cobra.Command {
	return t.with(&cobra.Command{Use: "probe RUN_ID", Short: "Tell where a run's stream begins and ends", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.ProbeRunStream(cmd.Context(), args[0], &api.ProbeRunStreamParams{})
			if err != nil {
				return err
			}
			defer r.Body.Close()
			if r.StatusCode != http.StatusOK {
				return fmt.Errorf("the service answered %d (request %s)", r.StatusCode, r.Header.Get("x-request-id"))
			}
			for _, name := range []string{"floor", "head", "closed"} {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", name, r.Header.Get("x-oa-stream-"+name))
			}
			return nil
		})
}

func (t *target) threadState() *cobra.Command {
	var limit int32
	var page string
	cmd := t.with(&cobra.Command{Use: "state THREAD_ID", Short: "Show a thread's messages and runs", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.GetThreadStateWithResponse(cmd.Context(), args[0], &api.GetThreadStateParams{Limit: &limit, PageToken: optional(page)})
			if err != nil {
				return err
			}
			return show(cmd, r.StatusCode(), r.GetBody(), nil)
		})
	cmd.Flags().Int32Var(&limit, "limit", 20, "runs per page, 1 to 100")
	cmd.Flags().StringVar(&page, "page", "", "the nextPageToken of the page before")
	return cmd
}

func (t *target) chat() *cobra.Command {
	var thread string
	cmd := t.with(&cobra.Command{Use: "chat", Short: "Talk to a running service", Args: cobra.NoArgs,
		Long: "Reads a message per line, starts a run for each in one thread, and shows the answer as it streams. Ends with Ctrl-D."},
		func(cmd *cobra.Command, c *client, _ []string) error {
			ctx, out := cmd.Context(), cmd.OutOrStdout()
			lines := bufio.NewScanner(cmd.InOrStdin())
			lines.Buffer(nil, 256<<10)
			for fmt.Fprint(out, "you:       "); lines.Scan(); fmt.Fprint(out, "you:       ") {
				text := strings.TrimSpace(lines.Text())
				if text == "" {
					continue
				}
				runID := uuid.NewString()
				if err := c.start(ctx, runID, thread, false); err != nil {
					return err
				}
				if err := c.say(ctx, runID, uuid.NewString(), text); err != nil {
					return err
				}
				fmt.Fprint(out, "assistant: ")
				told := &teller{out: out}
				if err := c.follow(ctx, runID, "", 0, told.part); err != nil {
					return err
				}
				fmt.Fprintln(out)
			}
			fmt.Fprintln(out)
			return lines.Err()
		})
	cmd.Flags().StringVar(&thread, "thread", "chat-"+uuid.NewString(), "the thread to talk in")
	return cmd
}
