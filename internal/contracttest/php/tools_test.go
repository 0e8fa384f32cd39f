package php_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// callingTools runs the PHPUnit tests under testdata/tools: a model calls a tool
// that Laravel carries out, when its user has approved.
func callingTools(t *testing.T, binary string) {
	model := httptest.NewServer(http.HandlerFunc(locator))
	t.Cleanup(model.Close)
	base := serve(t, binary, "MODEL_PROVIDER=openai", "MODEL_BASE_URL="+model.URL+"/v1", "MODEL_NAME=scripted", "MODEL_API_KEY=none")
	bin, err := exec.LookPath("phpunit")
	require.NoError(t, err, "phpunit is missing; install it with: %s", install)
	cmd := command(t, within(t), []string{"BASE_URL=" + base, "SECRET=" + secret}, bin,
		"--bootstrap", "testdata/autoload.php", "--do-not-cache-result", "--colors=never",
		"--fail-on-risky", "--fail-on-warning", "--fail-on-skipped", "--fail-on-incomplete", "testdata/tools")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	t.Log(string(out))
}

// locator is a model that asks for the user's location and then says what it was
// told.
func locator(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Tools []struct {
			Function struct{ Name string } `json:"function"`
		} `json:"tools"`
		Messages []struct {
			Role    string `json:"role"`
			Content any    `json:"content"`
		} `json:"messages"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	say := func(choice string) {
		fmt.Fprintf(w, `data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"scripted","choices":[{"index":0,%s}]}`+"\n\n", choice)
	}
	last := asked.Messages[len(asked.Messages)-1]
	if last.Role == "tool" {
		text, _ := json.Marshal(fmt.Sprintf("I was told: %v", last.Content))
		say(`"delta":{"role":"assistant","content":` + string(text) + `},"finish_reason":null`)
		say(`"delta":{},"finish_reason":"stop"`)
	} else {
		name := "none"
		for _, tool := range asked.Tools {
			if len(tool.Function.Name) >= 7 && tool.Function.Name[:7] == "browser" {
				name = tool.Function.Name
			}
		}
		say(`"delta":{"role":"assistant","tool_calls":[{"index":0,"id":"x1","type":"function","function":{"name":"` + name + `","arguments":"{\"precise\":true}"}}]},"finish_reason":null`)
		say(`"delta":{},"finish_reason":"tool_calls"`)
	}
	io.WriteString(w, "data: [DONE]\n\n")
}
