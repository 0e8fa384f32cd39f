package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/internal/redact"
)

// hidden writes log lines without secrets. Each Write is one whole line.
type hidden struct{ w io.Writer }

func (h hidden) Write(line []byte) (int, error) {
	text, ended := bytes.CutSuffix(line, []byte("\n"))
	clean := redact.JSON(json.RawMessage(text))
	if ended {
		clean = append(bytes.Clone(clean), '\n')
	}
	if _, err := h.w.Write(clean); err != nil {
		return 0, err
	}
	return len(line), nil
}

// knowSecrets tells redaction the secrets that the process was started with.
func (s *service) knowSecrets() error {
	for pair := range strings.SplitSeq(s.c.Secret, ",") {
		if _, text, found := strings.Cut(strings.TrimSpace(pair), ":"); found {
			s.know(text)
		}
	}
	s.know(s.c.ModelAPIKey)
	for name, text := range map[string]string{"DATABASE_URL": s.c.DatabaseURL, "DATABASE_UPKEEP_URL": s.c.UpkeepURL} {
		if text == "" {
			continue
		}
		database, err := pgx.ParseConfig(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err) // without the password
		}
		s.know(database.Password)
	}
	return nil
}

// know has a secret taken out of all that is stored, streamed and logged. What
// people write in ordinary texts cannot be told from it, so a word is no secret.
func (s *service) know(text string) {
	if text == "" {
		return
	}
	if word.MatchString(text) || !redact.Know(text) {
		s.logger.Warn("a secret is so short or simple that it is not looked for in texts; make another", "bytes", len(text))
	}
}

// word is what a sentence could have in it.
var word = regexp.MustCompile(`^\p{L}\p{Ll}{0,19}$`)
