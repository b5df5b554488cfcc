package pgwire_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// The server closes connections at about the time at which the deadline passes.
func TestCanceler_SurvivesDeadlineDuringTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const timeout = 2 * time.Millisecond
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("S"))
			time.AfterFunc(timeout, func() { conn.Close() })
		}
	}()
	c := &pgwire.Canceler{
		Dial: new(net.Dialer).DialContext, Network: "tcp", Address: l.Addr().String(),
		TLS: &tls.Config{ServerName: "localhost"},
	}
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		if err := c.Cancel(ctx, pgwire.CancelRequest{}); err == nil {
			t.Error("no error")
		}
		cancel()
	}
}
