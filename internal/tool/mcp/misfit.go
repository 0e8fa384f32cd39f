package mcp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// says tells a person what to change, without the value that is wrong. It is empty
// when the error's causes say it.
func says(e *jsonschema.ValidationError) string {
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		return "must be " + strings.Join(k.Want, " or ") + ", not " + k.Got
	case *kind.Required:
		return "add " + strings.Join(slices.Sorted(slices.Values(k.Missing)), ", ")
	case *kind.AdditionalProperties:
		return "take out " + strings.Join(slices.Sorted(slices.Values(k.Properties)), ", ") + ", which is not known"
	case *kind.Enum:
		return fmt.Sprintf("must be one of %v", k.Want)
	case *kind.Const:
		return fmt.Sprintf("must be %v", k.Want)
	case *kind.OneOf:
		return "give either stdio or http"
	case *kind.AnyOf:
		return `must be a text, or {"secret": …} with nothing but before beside it`
	case *kind.Pattern:
		return "must match " + k.Want
	case *kind.Minimum:
		return "must be at least " + k.Want.RatString()
	case *kind.Maximum:
		return "must be at most " + k.Want.RatString()
	default:
		if len(e.Causes) > 0 {
			return ""
		}
		return "does not satisfy " + strings.Join(e.ErrorKind.KeywordPath(), "/")
	}
}
