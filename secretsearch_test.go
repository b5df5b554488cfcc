package entrapg_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// rendered collects values in every format of fmt and encoding/json.
type rendered struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *rendered) add(values ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range values {
		fmt.Fprintf(&r.text, "%v\n%+v\n%#v\n%s\n%q\n", v, v, v, v, v)
		if b, err := json.Marshal(v); err == nil {
			r.text.Write(b)
		}
	}
}

func (r *rendered) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *rendered) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// addError adds err and every error that it wraps, with the configuration of a ConnectError.
func (r *rendered) addError(err error) {
	if err == nil {
		return
	}
	r.add(err)
	if e, ok := err.(*pgconn.ConnectError); ok { //nolint:errorlint // as below
		r.add(*e.Config)
	}
	switch e := err.(type) { //nolint:errorlint // visits every wrapped error
	case interface{ Unwrap() error }:
		r.addError(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, e := range e.Unwrap() {
			r.addError(e)
		}
	}
}

// hides fails the test if the collected text contains a secret, or 32 or more characters of it, plain
// or encoded.
func (r *rendered) hides(t *testing.T, secrets ...string) {
	t.Helper()
	const piece = 32
	pieces := map[string]int{}
	for n, secret := range secrets {
		raw := []byte(secret)
		for _, form := range []string{
			secret, url.QueryEscape(secret), hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)),
			base64.StdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
			strings.Trim(fmt.Sprintf("%d", raw), "[]"),
		} {
			for i := range max(1, len(form)-piece+1) {
				pieces[form[i:min(i+piece, len(form))]] = n
			}
		}
	}
	lengths := map[int]bool{}
	for p := range pieces {
		lengths[len(p)] = true
	}
	text := r.String()
	for length := range lengths {
		for i := range max(0, len(text)-length+1) {
			if n, found := pieces[text[i:i+length]]; found {
				t.Fatalf("secret %d appears: …%s…", n, text[max(0, i-400):min(len(text), i+length)])
			}
		}
	}
}

// tracer collects everything that pgx passes to a tracer. It holds a function and not a
// rendered, so that rendering the tracer does not include the text collected so far.
type tracer struct{ add func(...any) }

func (t tracer) TraceConnectStart(ctx context.Context, data pgx.TraceConnectStartData) context.Context {
	t.add(data, *data.ConnConfig, data.ConnConfig.Config)
	return ctx
}

func (t tracer) TraceConnectEnd(_ context.Context, data pgx.TraceConnectEndData) {
	t.add(data, data.Err)
	if data.Conn != nil && data.Err == nil {
		t.add(data.Conn.Config(), *data.Conn.Config(), *data.Conn)
	}
}

func (tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
