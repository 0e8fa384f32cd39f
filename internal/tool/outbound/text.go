package outbound

import (
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/charset"
)

// kind is a body's media type and whether it is text. What the server does not
// name is guessed from the first bytes.
func kind(contentType string, body []byte) (string, bool) {
	name, _, err := mime.ParseMediaType(contentType)
	if err != nil || name == "" {
		name, _, _ = mime.ParseMediaType(http.DetectContentType(body))
	}
	if len(name) > 128 || !utf8.ValidString(name) {
		name = "application/octet-stream"
	}
	text := strings.HasPrefix(name, "text/") || strings.HasSuffix(name, "+json") || strings.HasSuffix(name, "+xml") ||
		slices.Contains([]string{
			"application/json", "application/xml", "application/javascript", "application/x-javascript",
			"application/ecmascript", "application/yaml", "application/x-yaml", "application/toml", "application/x-ndjson",
			"application/jsonl", "application/x-www-form-urlencoded", "application/graphql", "application/sql",
		}, name)
	return name, text
}

func isHTML(name string) bool { return name == "text/html" || name == "application/xhtml+xml" }

// decoded is a body as UTF-8. The encoding is what the header, a byte order
// mark or the page says.
func decoded(body []byte, contentType string) string {
	enc, name, _ := charset.DetermineEncoding(body, contentType)
	if name != "utf-8" && !(utf8.Valid(body) && name == "windows-1252") {
		if converted, err := enc.NewDecoder().Bytes(body); err == nil {
			body = converted
		}
	}
	return clean(strings.TrimPrefix(string(body), "\uFEFF"))
}

// clean replaces what is no UTF-8 and drops control characters: terminals act on
// them, and a database cannot keep a zero byte.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r <= 0x9f {
			return -1
		}
		return r
	}, s)
}

// hidden elements have nothing that a reader sees.
var hidden = []string{"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "canvas"}

// blocks begin a line of their own.
var blocks = []string{
	"address", "article", "aside", "blockquote", "body", "br", "dd", "details", "div", "dl", "dt", "fieldset",
	"figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav",
	"ol", "p", "pre", "section", "summary", "table", "tr", "ul",
}

// readableText is what a reader of a page sees: its title, and its text with a
// line for each block and links as [text](address). It reads tokens, not a
// tree, so a page's nesting costs nothing.
func readableText(page string, base *url.URL) (title, text string) {
	w := &writer{base: base}
	z := html.NewTokenizer(strings.NewReader(page))
	for {
		switch z.Next() {
		case html.ErrorToken:
			// References such as &#27; have become characters by now.
			return strings.TrimSpace(clean(w.title.String())), strings.TrimSpace(clean(w.out.String()))
		case html.TextToken:
			w.text(string(z.Text()))
		case html.StartTagToken:
			t := z.Token()
			w.open(t, false)
		case html.SelfClosingTagToken:
			w.open(z.Token(), true)
		case html.EndTagToken:
			name, _ := z.TagName()
			w.close(string(name))
		case html.CommentToken, html.DoctypeToken:
		}
	}
}

type writer struct {
	base       *url.URL
	out, title strings.Builder
	skip       string // the hidden element that is open
	depth      int    // how often it is open within itself
	inTitle    bool
	pre        int
	links      []string
	fresh      bool // the line is empty
	space      bool // a space is due
}

func (w *writer) text(s string) {
	if w.skip != "" {
		return
	}
	if w.inTitle {
		w.title.WriteString(s)
		return
	}
	if w.pre > 0 {
		w.out.WriteString(s)
		w.fresh, w.space = strings.HasSuffix(s, "\n"), false
		return
	}
	for i, word := range strings.Fields(s) {
		if i > 0 || w.space || strings.TrimLeft(s, " \t\n\r\f") != s {
			if !w.fresh && w.out.Len() > 0 {
				w.out.WriteByte(' ')
			}
		}
		w.out.WriteString(word)
		w.fresh, w.space = false, false
	}
	if strings.TrimRight(s, " \t\n\r\f") != s {
		w.space = true
	}
}

func (w *writer) open(t html.Token, closed bool) {
	if w.skip != "" {
		if t.Data == w.skip && !closed {
			w.depth++
		}
		return
	}
	if slices.Contains(hidden, t.Data) {
		if !closed {
			w.skip, w.depth = t.Data, 1
		}
		return
	}
	if slices.Contains(blocks, t.Data) {
		w.line()
	}
	switch t.Data {
	case "title":
		w.inTitle = w.title.Len() == 0
	case "pre":
		w.pre++
	case "td", "th":
		w.mark(" | ")
	case "li":
		w.mark("- ")
	case "h1", "h2", "h3", "h4", "h5", "h6":
		w.mark(strings.Repeat("#", int(t.Data[1]-'0')) + " ")
	case "img":
		if alt := strings.TrimSpace(attr(t, "alt")); alt != "" {
			w.text(" [image: " + alt + "] ")
		}
	case "a":
		to := w.link(attr(t, "href"))
		w.links = append(w.links, to)
		if to != "" {
			w.mark("[")
		}
	}
}

func (w *writer) close(name string) {
	if w.skip != "" {
		if name == w.skip {
			if w.depth--; w.depth == 0 {
				w.skip = ""
			}
		}
		return
	}
	switch name {
	case "title":
		w.inTitle = false
	case "pre":
		w.pre = max(0, w.pre-1)
	case "a":
		if n := len(w.links); n > 0 {
			if to := w.links[n-1]; to != "" {
				w.out.WriteString("](" + to + ")")
				w.fresh = false
			}
			w.links = w.links[:n-1]
		}
	}
	if slices.Contains(blocks, name) {
		w.line()
	}
}

// mark writes what stands before text.
func (w *writer) mark(s string) {
	if w.space && !w.fresh && !strings.HasPrefix(s, " ") {
		s = " " + s
	}
	w.out.WriteString(s)
	w.fresh, w.space = true, false
}

func (w *writer) line() {
	if !w.fresh && w.out.Len() > 0 {
		w.out.WriteByte('\n')
	}
	w.fresh, w.space = true, false
}

// link is an address as it would be fetched, or "" when it cannot be.
func (w *writer) link(href string) string {
	ref, err := url.Parse(strings.TrimSpace(href))
	if err != nil || href == "" || strings.HasPrefix(href, "#") {
		return ""
	}
	to := w.base.ResolveReference(ref)
	if to.Scheme != "http" && to.Scheme != "https" || to.User != nil {
		return ""
	}
	return to.String()
}

func attr(t html.Token, name string) string {
	for _, a := range t.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}
