package outbound

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// sendable are the request headers that a model may set: none of them says who
// is asking.
var sendable = []string{"Accept", "Accept-Language", "If-Modified-Since", "If-None-Match"}

// readable are the response headers that it is shown.
var readable = []string{
	"Cache-Control", "Content-Disposition", "Content-Language", "Date", "Etag", "Expires", "Last-Modified",
	"Location", "Retry-After",
}

// PageHeader are the headers of a request that a model has set.
func PageHeader(set map[string]string) (http.Header, *tool.Error) {
	h := http.Header{}
	for name, value := range set {
		canonical := http.CanonicalHeaderKey(name)
		if !slices.Contains(sendable, canonical) {
			return nil, Invalid("only these headers may be set: " + strings.Join(sendable, ", "))
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return nil, Invalid("a header's value holds something else than visible ASCII")
		}
		h.Set(canonical, value)
	}
	return h, nil
}

// BodyType is the content type of a body that a model sends; text when it says none.
func BodyType(said string) (string, *tool.Error) {
	if said == "" {
		said = "text/plain; charset=utf-8"
	}
	kind, params, err := mime.ParseMediaType(said)
	if err != nil {
		return "", Invalid("the content type cannot be read")
	}
	return mime.FormatMediaType(kind, params), nil
}

// Invalid is the error of an input that its schema lets through.
func Invalid(why string) *tool.Error { return &tool.Error{Class: InvalidInput, Message: why} }

// Page is what a model is shown of an answer.
type Page struct {
	Status      int               `json:"status"`
	FinalURL    string            `json:"finalUrl"`
	ContentType string            `json:"contentType"`
	Headers     map[string]string `json:"headers"`
	Title       string            `json:"title,omitempty"`
	Text        *string           `json:"text,omitempty"`
	Base64      *string           `json:"base64,omitempty"`
	Truncated   bool              `json:"truncated"`
	Bytes       int               `json:"bytes"`
}

// PageProperties are the members of a Page as those of a JSON Schema, for outputs
// that hold them.
const PageProperties = `
    "status": {"type": "integer", "minimum": 100, "maximum": 999},
    "finalUrl": {"type": "string", "description": "Where the answer came from, after redirects."},
    "contentType": {"type": "string", "description": "The media type without parameters."},
    "headers": {"type": "object", "additionalProperties": {"type": "string"}},
    "title": {"type": "string", "description": "Of an HTML page."},
    "text": {"type": "string", "description": "The body as text; of HTML what a reader would see."},
    "base64": {"type": "string", "description": "A small body that is no text."},
    "truncated": {"type": "boolean", "description": "Whether there was more."},
    "bytes": {"type": "integer", "minimum": 0, "description": "How many bytes of the body were read, decompressed."}`

// Reading is how much of an answer a page has.
type Reading struct {
	// Text bounds the text, Binary a body that is no text, in bytes.
	Text, Binary int
	// Hide, when given, takes out what must not be shown, before anything is cut.
	Hide func(string) string
}

// ReadPage makes a page of an answer.
func ReadPage(resp egress.Response, r Reading) (Page, *tool.Error) {
	hide := r.Hide
	if hide == nil {
		hide = func(s string) string { return s }
	}
	p := Page{
		Status: resp.Status, FinalURL: hide(resp.URL.String()), Headers: map[string]string{},
		Bytes: len(resp.Body), Truncated: resp.Truncated,
	}
	for _, name := range readable {
		if v := resp.Header.Get(name); v != "" {
			p.Headers[strings.ToLower(name)] = Line(hide(clean(v)), 512)
		}
	}
	var text bool
	p.ContentType, text = kind(resp.Header.Get("Content-Type"), resp.Body)
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") && len(resp.Body) > 0 {
		return p, &tool.Error{Class: Unsupported, Message: "the answer is compressed in a way that was not asked for"}
	}
	if !text && len(resp.Body) > 0 {
		if len(resp.Body) > r.Binary || resp.Truncated {
			return p, &tool.Error{Class: Unsupported, Message: "the answer is no text (" + p.ContentType + ") and too large to be handed on"}
		}
		encoded := hide(base64.StdEncoding.EncodeToString(resp.Body))
		p.Base64 = &encoded
		return p, nil
	}
	full := decoded(resp.Body, resp.Header.Get("Content-Type"))
	if isHTML(p.ContentType) {
		p.Title, full = readableText(full, resp.URL)
		p.Title = Line(hide(p.Title), 512)
	}
	full = hide(full)
	cut := Cut(full, r.Text)
	p.Truncated = p.Truncated || len(cut) < len(full)
	p.Text = &cut
	return p, nil
}

// Most is a bound as a caller lowered it; 0 is as it is.
func Most(bound, wanted int) int {
	if wanted > 0 {
		return min(bound, wanted)
	}
	return bound
}

// JSON is an output as it stands, without the escapes that are meant for HTML.
func JSON(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}
