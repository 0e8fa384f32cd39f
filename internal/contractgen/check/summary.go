package check

import (
	"fmt"
	"strings"
)

// documentTitles name the documents for people.
var documentTitles = map[string]string{"runtime.yaml": "API", "events.yaml": "Events", "ds.yaml": "DS schemas"}

// Summary tells the changes in Markdown, for a pull request.
func Summary(base Base, changes []Change) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## Contract changes\n\nCompared with %s.\n", base.Name)
	if len(changes) == 0 {
		b.WriteString("\nNone.\n")
		return b.String()
	}
	for _, doc := range documentOrder {
		where, opened := "", false
		for _, c := range changes {
			if c.Document != doc {
				continue
			}
			if !opened {
				fmt.Fprintf(&b, "\n### %s\n", documentTitles[doc])
				opened = true
			}
			if c.Where != where {
				fmt.Fprintf(&b, "\n**`%s`**\n\n", c.Where)
				where = c.Where
			}
			mark := ""
			if c.Breaking {
				mark = "**breaking:** "
			}
			fmt.Fprintf(&b, "- %s%s\n", mark, c.Text)
		}
	}
	return b.String()
}
