package model

import (
	"bytes"
	"errors"
	"io"
)

var errOversize = errors.New("the answer is larger than allowed")

// boundedBody fails with errOversize once a line or the whole body is longer
// than allowed, so that an endpoint cannot make us hold what it likes.
type boundedBody struct {
	io.ReadCloser
	maxLine, maxTotal int64
	line, total       int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.total += int64(n)
	rest := p[:n]
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			b.line += int64(len(rest))
			break
		}
		if b.line+int64(i) > b.maxLine {
			return 0, errOversize
		}
		b.line = 0
		rest = rest[i+1:]
	}
	if b.line > b.maxLine || b.total > b.maxTotal {
		return 0, errOversize
	}
	return n, err
}

// cutBody ends quietly after n bytes: enough of an error to know its kind.
type cutBody struct {
	io.Reader
	io.Closer
}

func cut(body io.ReadCloser, n int64) io.ReadCloser {
	return cutBody{Reader: io.LimitReader(body, n), Closer: body}
}
