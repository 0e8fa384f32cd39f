package bundle

import (
	"path"
	"regexp"
	"strings"
	"unicode"
)

var (
	fileName = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_]*)\.v([1-9][0-9]*)\.json$`)
	wordPart = regexp.MustCompile(`[\p{Lu}\d]+([\p{Ll}\d]+|$)`)
)

// initialisms are the words that oapi-codegen's name normalizer writes in capitals.
var initialisms = func() map[string]string {
	m := map[string]string{}
	for _, w := range strings.Fields(`ACL API ASCII CPU CSS DNS EOF GUID HTML HTTP HTTPS ID IP JSON QPS RAM RPC
		SLA SMTP SQL SSH TCP TLS TTL UDP UI GID UID UUID URI URL UTF8 VM XML XMPP XSRF XSS SIP RTP AMQP DB TS`) {
		m[strings.ToLower(w)] = w
	}
	return m
}()

// baseName turns predict_receipt.v1.json into PredictReceiptV1; ok is false for any other form.
func baseName(file string) (name string, ok bool) {
	m := fileName.FindStringSubmatch(path.Base(file))
	if m == nil {
		return "", false
	}
	return Camel(m[1]) + "V" + m[2], true
}

// Camel joins the words of a snake_case, dotted or hyphenated name, each with a capital.
func Camel(s string) string {
	var b strings.Builder
	up := true
	for _, r := range s {
		if r == '_' || r == '-' || r == '.' {
			up = true
			continue
		}
		if up {
			r = unicode.ToUpper(r)
		}
		up = false
		b.WriteRune(r)
	}
	return b.String()
}

// GoName is the Go type name that oapi-codegen gives to the component of that name.
func GoName(component string) string {
	parts := wordPart.FindAllString(Camel(component), -1)
	for i, p := range parts {
		if w, ok := initialisms[strings.ToLower(p)]; ok {
			parts[i] = w
		}
	}
	return strings.Join(parts, "")
}
