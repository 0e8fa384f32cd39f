package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// part is one block of a stream.
type part struct {
	Seq  int64
	Data string // JSON, [DONE], or empty for an event that clients do not show
	Raw  string // the block as it came
}

// readParts reads server-sent events and gives each block to f, until f or the
// connection ends. A body that ends without [DONE] is an error.
func readParts(r io.Reader, f func(part) error) error {
	lines := bufio.NewReaderSize(r, 64<<10)
	var p part
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the stream broke: %w", err)
		}
		p.Raw += line
		line = strings.TrimRight(line, "\r\n")
		switch name, value, _ := strings.Cut(line, ":"); {
		case line == "":
			if p.Seq > 0 {
				if err := f(p); err != nil {
					return err
				}
			}
			p = part{}
		case name == "data":
			p.Data = strings.TrimPrefix(value, " ")
		case name == "id":
			if p.Seq, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64); err != nil {
				return fmt.Errorf("the stream has a bad id: %w", err)
			}
		}
	}
}

// teller shows a run's parts to a person.
type teller struct {
	out   io.Writer
	begun time.Time
	parts int
	first time.Duration // until the first text
}

func (t *teller) part(p part) error {
	t.parts++
	var said struct {
		Type, Delta, ErrorText, ToolName string
		Data                             struct{ ApprovalID, State, Title string }
	}
	if err := json.Unmarshal([]byte(p.Data), &said); err != nil {
		return fmt.Errorf("part %d: %w", p.Seq, err)
	}
	switch said.Type {
	case "text-delta":
		if t.first == 0 {
			t.first = time.Since(t.begun)
		}
		fmt.Fprint(t.out, said.Delta)
	case "data-discard", "reset-step":
		fmt.Fprint(t.out, "\n  (what was just written is taken back)\n")
	case "tool-input-available":
		fmt.Fprintf(t.out, "\n  (calls %s)\n", said.ToolName)
	case "tool-output-error":
		fmt.Fprintf(t.out, "  (the call failed: %s)\n", said.ErrorText)
	case "data-approval":
		if said.Data.State == "pending" {
			fmt.Fprintf(t.out, "  (a person is asked: %s; openagents-runtime approval approve %s)\n", said.Data.Title, said.Data.ApprovalID)
		}
	case "error":
		fmt.Fprintf(t.out, "\n  the run failed: %s", said.ErrorText)
	case "abort":
		fmt.Fprint(t.out, "\n  the run was canceled")
	}
	return nil
}
