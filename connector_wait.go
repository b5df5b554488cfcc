package entrapg

import (
	"context"
	"time"

	"github.com/entrapg/entrapg/internal/token"
)

// A tokenWait is the time for which one Connect may still wait for tokens.
type tokenWait struct {
	credential *credentialSource
	left       time.Duration // negative if the wait was extended
}

func newTokenWait(credential *credentialSource) *tokenWait {
	return &tokenWait{credential: credential, left: credential.wait()}
}

// start returns a context that expires when the time has elapsed, and a function that
// releases it and subtracts the elapsed time. While a managed identity endpoint is
// temporarily unavailable, the context expires later, by the credential's extension.
func (w *tokenWait) start(ctx context.Context) (context.Context, func()) {
	start, left := time.Now(), w.left
	ctx, cancel := context.WithCancelCause(ctx)
	expire := func() { cancel(token.NoAnswer(time.Since(start).Round(time.Second))) }
	timer := time.AfterFunc(left, func() {
		more := w.credential.extension() + min(left, 0)
		if more <= 0 {
			expire()
			return
		}
		extended := time.AfterFunc(more, expire)
		context.AfterFunc(ctx, func() { extended.Stop() }) // otherwise it would keep ctx in memory
	})
	return ctx, func() {
		timer.Stop()
		cancel(nil)
		w.left -= time.Since(start)
	}
}
