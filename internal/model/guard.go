package model

import (
	"context"
	"io"
	"net/http"
)

type guardKey struct{}

// WithGuard gives the calls under a context a question that is asked right
// before a request's bytes are written. An error ends the call, and the endpoint
// has no whole request. What stands still between the answer and the write still
// sends late: that gap is microseconds, and cannot be closed.
func WithGuard(ctx context.Context, may func() error) context.Context {
	return context.WithValue(ctx, guardKey{}, may)
}

// guarded is a request whose body asks the guard at each read. The transport
// reads the body after it has a connection, however long that took, and ends a
// request whose body fails by closing the connection.
func guarded(req *http.Request) *http.Request {
	may, _ := req.Context().Value(guardKey{}).(func() error)
	if may == nil || req.Body == nil || req.Body == http.NoBody {
		return req
	}
	out := req.Clone(req.Context())
	out.Body = &guardedBody{req.Body, may}
	if again := req.GetBody; again != nil {
		out.GetBody = func() (io.ReadCloser, error) {
			body, err := again()
			if err != nil {
				return nil, err
			}
			return &guardedBody{body, may}, nil
		}
	}
	return out
}

type guardedBody struct {
	io.ReadCloser
	may func() error
}

func (b *guardedBody) Read(p []byte) (int, error) {
	if err := b.may(); err != nil {
		return 0, err
	}
	return b.ReadCloser.Read(p)
}
