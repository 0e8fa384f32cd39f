package server

import (
	"net/http"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

// response is a ResponseWriter that remembers what was answered.
type response struct {
	http.ResponseWriter
	status  int // 0 until the header is written
	bytes   int64
	timeout time.Duration // for the client to take the answer; 0 when the answer sets its own

	detached bool // the answer goes on after the handler

	code   api.ErrorCode // of a refused or failed request
	reason auth.Reason   // of a refused caller
	caller auth.Caller   // who was let in
}

// statusGone is what the log and the metrics say about a client that left
// before its answer; nobody receives it.
const statusGone = 499

func (o *response) WriteHeader(status int) {
	if o.status == 0 && status >= 200 {
		o.status = status
		if o.timeout > 0 {
			// Not every writer has deadlines; those of a server do.
			_ = http.NewResponseController(o.ResponseWriter).SetWriteDeadline(time.Now().Add(o.timeout))
		}
	}
	o.ResponseWriter.WriteHeader(status)
}

func (o *response) Write(b []byte) (int, error) {
	if o.status == 0 {
		o.WriteHeader(http.StatusOK)
	}
	n, err := o.ResponseWriter.Write(b)
	o.bytes += int64(n)
	return n, err
}

// FlushError lets a response controller flush through.
func (o *response) FlushError() error {
	if o.status == 0 {
		o.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(o.ResponseWriter).Flush()
}

// Unwrap lets a response controller reach the connection.
func (o *response) Unwrap() http.ResponseWriter { return o.ResponseWriter }
