package httpfetch

import "net/url"

// Readable is what a reader of a page sees.
func Readable(page []byte, contentType string) string {
	title, text := readableText(decoded(page, contentType), &url.URL{Scheme: "https", Host: "example.com"})
	return title + text
}
