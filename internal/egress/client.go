package egress

import (
	"context"
	"net/http"
	"net/netip"
)

// Client makes calls for protocols that need an http.Client and bodies that
// last. Each request is checked, looked up and pinned as a hop of Do is; its
// errors are a *Refusal or a *Failure within a *url.Error. No redirect is
// followed: it is the answer. Neither a body's size nor its time is bounded, the
// caller's context and reading do that.
func (g *Guard) Client() *http.Client {
	return &http.Client{
		Transport: guarded{g},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

type guarded struct{ g *Guard }

func (c guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	w := &walk{g: c.g, found: map[string][]netip.Addr{}, header: http.Header{}, stay: true}
	refuse := func(err error) (*http.Response, error) {
		if req.Body != nil {
			_ = req.Body.Close() // a RoundTripper closes it, whatever comes of the request
		}
		return nil, err
	}
	t, refusal := parseTarget(req.URL.String())
	if refusal == nil {
		refusal = c.g.permit(t)
	}
	if refusal != nil {
		return refuse(w.refused(ctx, refusal, t))
	}
	within, stop := context.WithTimeout(ctx, c.g.c.ConnectTimeout)
	list, err := c.g.lookUp(within, t)
	stop()
	if err != nil {
		return refuse(w.failed(ctx, err, t))
	}
	if refusal := c.g.admit(t, list); refusal != nil {
		return refuse(w.refused(ctx, refusal, t))
	}
	made := w.request(context.WithValue(ctx, pinKey{}, pin{addrs: list, port: t.port}), t)
	made.Method, made.Body, made.GetBody, made.ContentLength = req.Method, req.Body, req.GetBody, req.ContentLength
	for name, values := range req.Header {
		made.Header[name] = values
	}
	for _, name := range perHop {
		made.Header.Del(name)
	}
	resp, err := c.g.transport.RoundTrip(made)
	if err != nil {
		return nil, w.failed(ctx, err, t)
	}
	return resp, nil
}
