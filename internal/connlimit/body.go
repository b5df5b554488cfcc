package connlimit

import (
	"errors"
	"io"
)

// A body calls received at the end of a request's body.
type body struct {
	io.ReadCloser
	received func()
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.received()
	}
	return n, err
}
