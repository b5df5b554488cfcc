package engine

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// FuzzServer_Client sends arbitrary bytes to a proxy with a password. No client may reach
// the login upstream.
func FuzzServer_Client(f *testing.F) {
	for _, seed := range []string{
		startupMessage, tlsRequest + startupMessage, "\x00\x00\x00\x08\x04\xd2\x16\x30", "\x16\x03\x01\x00\x05hello",
		"\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x01",
		startupMessage + "p\x00\x00\x00\x09word\x00", startupMessage + "Q\x00\x00\x00\x0dselect 1\x00",
		startupMessage + scramFirst + "p\x00\x00\x00\x10c=biws,r=abc,p=AAAA",
		"\x00\x00\x00\x08\x00\x02\x00\x00", "\x00\x00\x00\x09\x00\x03\x00\x02\x00",
	} {
		f.Add([]byte(seed), 0)
		f.Add([]byte(seed), 3)
	}
	u, verifier := unreached(f), pgwire.NewVerifier("secret", 1)
	f.Fuzz(func(t *testing.T, sent []byte, piece int) {
		s := &Server{Upstream: u, StartupTimeout: time.Second}
		s.setUp()
		s.verifier.Store(verifier)
		client, network := net.Pipe()
		s.accept(network)
		answers := make(chan []byte, 1)
		go func() {
			b, _ := io.ReadAll(client)
			answers <- b
		}()
		client.SetWriteDeadline(time.Now().Add(5 * time.Second))
		for rest := sent; len(rest) > 0; {
			n := len(rest)
			if piece > 0 {
				n = min(n, piece)
			}
			if _, err := client.Write(rest[:n]); err != nil {
				break
			}
			rest = rest[n:]
		}
		client.SetDeadline(time.Now().Add(time.Millisecond)) // the server sends nothing more
		client.Close()
		answer := <-answers
		s.running.Wait()
		stats := s.Stats()
		if stats.Open != 0 || stats.Sessions != 0 || stats.Login.Count() != 0 ||
			stats.Rejected[RejectedServer]+stats.Rejected[RejectedNetwork] != 0 {
			t.Errorf("%+v", stats)
		}
		if bytes.Contains(answer, []byte("R\x00\x00\x00\x08\x00\x00\x00\x00")) {
			t.Errorf("logged in: %q", answer)
		}
		s.Close()
	})
}
