package egress

// Canonical is a URL as it is sent, with its host.
func Canonical(raw string) (clean, host string, err error) {
	t, refusal := parseTarget(raw)
	if refusal != nil {
		return "", "", refusal
	}
	return t.url.String(), t.host, nil
}
