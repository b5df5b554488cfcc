package token

import (
	"context"
	"log/slog"
)

// A call is a request to the credential in flight. Its result is set before
// done is closed.
type call struct {
	other  bool // the current token was rejected, and the call requests another
	log    *slog.Logger
	cancel context.CancelFunc

	done  chan struct{}
	token *Token
	err   error
}

// wait blocks until the call completes, the caller's context is done or the
// caller is closed.
func (c *call) wait(ctx context.Context, r Request) (*Token, error) {
	select {
	case <-c.done:
		return c.token, c.err
	case <-r.Closed:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
}
