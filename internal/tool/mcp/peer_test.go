package mcp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// mode says which server the test binary is when a test starts it again.
const mode = "MCP_TEST_SERVER"

// serve is the other process of the tests over stdio.
func serve(kind string) error {
	switch kind {
	case "sdk":
		return peer(os.Getenv("MARK")).Run(context.Background(), &sdk.StdioTransport{})
	case "deaf":
		time.Sleep(time.Hour)
	case "hang":
		_, err := bufio.NewReader(os.Stdin).ReadString(0)
		return err
	case "garbage":
		fmt.Println("Welcome to the server!")
		_, err := bufio.NewReader(os.Stdin).ReadString(0)
		return err
	case "exit":
		return errors.New("canary-of-the-log sk-ant-REDACTED")
	}
	return raw(kind)
}

// raw is a server that follows the protocol only as far as a test needs it.
func raw(kind string) error {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	answer := func(id json.RawMessage, result string) {
		fmt.Printf(`{"jsonrpc":"2.0","id":%s,"result":%s}`+"\n", id, result)
	}
	list := func(input string) string {
		return `{"tools":[{"name":"odd","inputSchema":` + input + `},{"name":"plain","inputSchema":{"type":"object"}}]}`
	}
	pages := 0
	for in.Scan() {
		var m struct {
			ID     json.RawMessage
			Method string
		}
		if err := json.Unmarshal(in.Bytes(), &m); err != nil {
			return err
		}
		switch {
		case m.ID == nil:
		case m.Method == "initialize":
			answer(m.ID, `{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"raw","version":"1"}}`)
		case m.Method == "tools/list":
			switch kind {
			case "deep":
				answer(m.ID, list(strings.Repeat(`{"type":"object","properties":{"a":`, 100_000)+`{}`+strings.Repeat(`}}`, 100_000)))
			case "deepish":
				answer(m.ID, list(strings.Repeat(`{"type":"object","properties":{"a":`, 300)+`{}`+strings.Repeat(`}}`, 300)))
			case "remote":
				answer(m.ID, list(`{"type":"object","properties":{"a":{"$ref":"http://127.0.0.1:9/schema.json"}}}`))
			case "bomb":
				answer(m.ID, list(`{"type":"object","$defs":{"a":{"allOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"}]}},"$ref":"#/$defs/a"}`))
			case "array":
				answer(m.ID, list(`{"type":"array"}`))
			case "pages": // without end
				pages++
				answer(m.ID, fmt.Sprintf(`{"tools":[{"name":"t%d","inputSchema":{"type":"object"}}],"nextCursor":"%d"}`, pages, pages))
			case "many":
				all := make([]string, 10_000)
				for i := range all {
					all[i] = fmt.Sprintf(`{"name":"t%d","description":"does %d","inputSchema":{"type":"object"}}`, i, i)
				}
				answer(m.ID, `{"tools":[`+strings.Join(all, ",")+`]}`)
			default:
				answer(m.ID, list(`{"type":"object"}`))
			}
		case m.Method == "tools/call" && kind == "flood":
			for {
				if _, err := fmt.Println(`{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}`); err != nil {
					return err
				}
			}
		case m.Method == "tools/call" && kind == "nonsense":
			answer(m.ID, `{"content":[{"type":"hologram"}]}`)
		case m.Method == "tools/call" && kind == "once":
			answer(m.ID, `{"content":[{"type":"text","text":"done"}]}`)
			return nil
		case m.Method == "tools/call" && kind == "silent":
		default:
			fmt.Printf(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no such method"}}`+"\n", m.ID)
		}
	}
	return in.Err()
}

type nothing struct{}

type said struct {
	Text string `json:"text"`
}

type sized struct {
	Bytes int `json:"bytes"`
}

// asking is what a tool asks a person.
type asking struct {
	Schema string `json:"schema,omitempty"`
	URL    string `json:"url,omitempty"`
}

func (a asking) params() *sdk.ElicitParams {
	p := &sdk.ElicitParams{Message: "Which\x1b[31m branch?", URL: a.URL}
	if a.URL != "" {
		p.Mode, p.ElicitationID = "url", "e-1"
	}
	if a.Schema != "" {
		p.RequestedSchema = json.RawMessage(a.Schema)
	}
	return p
}

// peer is a server made with the SDK. mark is a file that says what happened in it.
func peer(mark string) *sdk.Server {
	s := sdk.NewServer(&sdk.Implementation{Name: "peer", Version: "1.2"}, nil)
	note := func(text string) {
		if mark != "" {
			_ = os.WriteFile(mark, []byte(text), 0o600)
		}
	}
	text := func(t string) *sdk.CallToolResult {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: t}}}
	}
	sdk.AddTool(s, &sdk.Tool{Name: "echo", Description: "Says it\u202e again.\x1b[31m", Annotations: &sdk.ToolAnnotations{ReadOnlyHint: true, Title: "Echo"}},
		func(_ context.Context, _ *sdk.CallToolRequest, in said) (*sdk.CallToolResult, said, error) {
			return nil, in, nil
		})
	sdk.AddTool(s, &sdk.Tool{Name: "put", Annotations: &sdk.ToolAnnotations{IdempotentHint: true}},
		func(_ context.Context, r *sdk.CallToolRequest, _ nothing) (*sdk.CallToolResult, any, error) {
			meta, err := json.Marshal(r.Params.Meta)
			return text(string(meta)), nil, err
		})
	sdk.AddTool(s, &sdk.Tool{Name: "env"}, func(context.Context, *sdk.CallToolRequest, nothing) (*sdk.CallToolResult, any, error) {
		dir, err := os.Getwd()
		return text(strings.Join(append(os.Environ(), "dir="+dir), "\n")), nil, err
	})
	sdk.AddTool(s, &sdk.Tool{Name: "slow"}, func(ctx context.Context, _ *sdk.CallToolRequest, _ nothing) (*sdk.CallToolResult, any, error) {
		note("begun")
		<-ctx.Done()
		note("canceled")
		return nil, nil, ctx.Err()
	})
	sdk.AddTool(s, &sdk.Tool{Name: "steps"}, func(ctx context.Context, r *sdk.CallToolRequest, _ nothing) (*sdk.CallToolResult, any, error) {
		err := r.Session.NotifyProgress(ctx, &sdk.ProgressNotificationParams{
			ProgressToken: r.Params.GetProgressToken(), Progress: 1, Total: 3, Message: "step",
		})
		if err != nil {
			return nil, nil, err
		}
		<-ctx.Done() // whoever saw the step gives up
		note("canceled")
		return nil, nil, ctx.Err()
	})
	sdk.AddTool(s, &sdk.Tool{Name: "fail"}, func(context.Context, *sdk.CallToolRequest, nothing) (*sdk.CallToolResult, any, error) {
		return nil, nil, errors.New("the disk\x1b[2J is full")
	})
	sdk.AddTool(s, &sdk.Tool{Name: "die"}, func(context.Context, *sdk.CallToolRequest, nothing) (*sdk.CallToolResult, any, error) {
		os.Exit(3)
		return nil, nil, nil
	})
	sdk.AddTool(s, &sdk.Tool{Name: "big"}, func(_ context.Context, _ *sdk.CallToolRequest, in sized) (*sdk.CallToolResult, any, error) {
		return text(strings.Repeat("x", in.Bytes)), nil, nil
	})
	sdk.AddTool(s, &sdk.Tool{Name: "ask"}, func(ctx context.Context, r *sdk.CallToolRequest, _ nothing) (*sdk.CallToolResult, any, error) {
		a, err := r.Session.Elicit(ctx, &sdk.ElicitParams{Message: "Which branch?"})
		if err != nil {
			return nil, nil, err
		}
		return nil, nil, errors.New("the person said " + a.Action)
	})
	s.AddTool(&sdk.Tool{Name: "need", InputSchema: map[string]any{"type": "object"}}, func(_ context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		if r.Params.InputResponses != nil {
			return nil, errors.New("nobody answered")
		}
		return &sdk.CallToolResult{InputRequests: sdk.InputRequestMap{"branch": &sdk.ElicitParams{Message: "Which branch?"}}}, nil
	})
	answered := func(a *sdk.ElicitResult) (*sdk.CallToolResult, error) {
		raw, err := json.Marshal(map[string]any{"action": a.Action, "content": a.Content})
		return text(string(raw)), err
	}
	sdk.AddTool(s, &sdk.Tool{Name: "form"}, func(ctx context.Context, r *sdk.CallToolRequest, in asking) (*sdk.CallToolResult, any, error) {
		a, err := r.Session.Elicit(ctx, in.params())
		if err != nil {
			return nil, nil, err
		}
		if a.Action == "cancel" {
			return nil, nil, errors.New("nobody answered")
		}
		res, err := answered(a)
		return res, nil, err
	})
	s.AddTool(&sdk.Tool{Name: "rounds", InputSchema: map[string]any{"type": "object"}}, func(_ context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		var in asking
		if err := json.Unmarshal(r.Params.Arguments, &in); err != nil {
			return nil, err
		}
		a, ok := r.Params.InputResponses["it"].(*sdk.ElicitResult)
		switch {
		case !ok:
			return &sdk.CallToolResult{InputRequests: sdk.InputRequestMap{"it": in.params()}, RequestState: "round one"}, nil
		case a.Action == "cancel":
			return nil, errors.New("nobody answered")
		case r.Params.RequestState != "round one":
			return nil, errors.New("the state is lost: " + r.Params.RequestState)
		}
		return answered(a)
	})
	sdk.AddTool(s, &sdk.Tool{Name: "sample"}, func(ctx context.Context, r *sdk.CallToolRequest, _ nothing) (*sdk.CallToolResult, any, error) {
		_, err := r.Session.CreateMessage(ctx, &sdk.CreateMessageParams{MaxTokens: 1, Messages: []*sdk.SamplingMessage{}}) //nolint:staticcheck // servers of today still ask so
		return nil, nil, err
	})
	sdk.AddTool(s, &sdk.Tool{Name: "grow"}, func(context.Context, *sdk.CallToolRequest, nothing) (*sdk.CallToolResult, any, error) {
		sdk.AddTool(s, &sdk.Tool{Name: "grown"}, func(context.Context, *sdk.CallToolRequest, nothing) (*sdk.CallToolResult, any, error) {
			return text("new"), nil, nil
		})
		return text("grown"), nil, nil
	})
	sdk.AddTool(s, &sdk.Tool{Name: "media"}, func(context.Context, *sdk.CallToolRequest, nothing) (*sdk.CallToolResult, any, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{
			&sdk.TextContent{Text: "a\x00b"},
			&sdk.ImageContent{MIMEType: "image/png", Data: []byte("png")},
			&sdk.AudioContent{MIMEType: "audio/wav", Data: make([]byte, 100_000)},
			&sdk.ResourceLink{URI: "file:///a", Name: "a", MIMEType: "text/plain"},
			&sdk.EmbeddedResource{Resource: &sdk.ResourceContents{URI: "file:///b", MIMEType: "text/plain", Text: "inside"}},
			&sdk.EmbeddedResource{Resource: &sdk.ResourceContents{URI: "file:///c", Blob: []byte{1, 2}}},
		}}, nil, nil
	})
	sdk.AddTool(s, &sdk.Tool{Name: "orphan"}, func(context.Context, *sdk.CallToolRequest, nothing) (*sdk.CallToolResult, any, error) {
		cmd := exec.Command("/bin/sleep", "1000")
		if err := cmd.Start(); err != nil {
			return nil, nil, err
		}
		return text(fmt.Sprint(cmd.Process.Pid)), nil, nil
	})
	return s
}
