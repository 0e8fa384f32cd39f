package server

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
)

// readBody reads the whole body, as much of it as the operation takes, within
// the time that a body has.
func (d *door) readBody(out *response, r *http.Request, op api.Operation) ([]byte, error) {
	tooLarge := func() error {
		// The rest of the body is not read.
		out.Header().Set("Connection", "close")
		if op.MaxBodyBytes == 0 {
			return fault.New(api.PayloadTooLarge, "this operation takes no request body").With("maxBytes", 0)
		}
		return fault.New(api.PayloadTooLarge, "the request body is larger than %d bytes", op.MaxBodyBytes).
			With("maxBytes", op.MaxBodyBytes)
	}
	if r.ContentLength > op.MaxBodyBytes {
		return nil, tooLarge()
	}
	if r.ContentLength < 0 {
		// A chunked body may have come with a length too, which the HTTP server
		// has dropped, and another reader would see the end elsewhere: nothing
		// more is read from this connection (RFC 9112, section 6.1).
		out.Header().Set("Connection", "close")
	}
	rc := http.NewResponseController(out)
	// A writer without deadlines is not a connection and cannot be slow.
	limited := rc.SetReadDeadline(time.Now().Add(d.config.BodyTimeout)) == nil
	body, err := io.ReadAll(http.MaxBytesReader(out, r.Body, op.MaxBodyBytes))
	if limited && err == nil {
		err = rc.SetReadDeadline(time.Time{})
	}
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		out.Header().Set("Connection", "close")
		return nil, fault.New(api.RequestTimeout, "the request body did not arrive within %s", d.config.BodyTimeout)
	case err != nil && r.Context().Err() != nil:
		return nil, r.Context().Err()
	case err != nil:
		out.Header().Set("Connection", "close")
		return nil, fault.New(api.InvalidRequest, "the request body could not be read to its end").Because(err)
	}
	if len(body) > 0 {
		return body, mediaType(r.Header)
	}
	return body, nil
}

// mediaType wants JSON that is not encoded.
func mediaType(h http.Header) error {
	refused := fault.New(api.UnsupportedMediaType, "send application/json in UTF-8, without content-encoding")
	for _, e := range h.Values("Content-Encoding") {
		if !strings.EqualFold(strings.TrimSpace(e), "identity") {
			return refused
		}
	}
	types := h.Values("Content-Type")
	if len(types) != 1 {
		return refused
	}
	kind, params, err := mime.ParseMediaType(types[0])
	if err != nil || kind != "application/json" {
		return refused
	}
	if charset, given := params["charset"]; given && !strings.EqualFold(charset, "utf-8") {
		return refused
	}
	return nil
}
