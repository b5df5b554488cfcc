package engine

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrapg/entrapg"
)

// unreached returns an upstream for clients that must not reach it.
func unreached(t testing.TB) *Upstream {
	t.Helper()
	u, err := NewUpstream("postgres://u:p@127.0.0.1:1/?sslmode=disable&entra_credential=none", entrapg.WithLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

const (
	startupMessage = "\x00\x00\x00\x11\x00\x03\x00\x00user\x00me\x00\x00"
	tlsRequest     = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	clientHello    = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" // its beginning
	scramFirst     = "p\x00\x00\x00\x26SCRAM-SHA-256\x00\x00\x00\x00\x10n,,n=,r=abcdefgh"
)

func TestServer_RejectsClientsThatDoNotStart(t *testing.T) {
	u := unreached(t)
	for name, test := range map[string]struct {
		sent   string
		tls    *tls.Config
		waits  bool   // until the timeout
		answer string // its beginning
	}{
		"nothing":                 {"", nil, true, ""},
		"a part of the length":    {"\x00\x00\x00", nil, true, ""},
		"a part of the message":   {startupMessage[:10], nil, true, ""},
		"no password":             {startupMessage, nil, true, "R"},
		"a part of SCRAM":         {startupMessage + scramFirst, nil, true, "R"},
		"no startup after N":      {tlsRequest, nil, true, "N"},
		"no handshake after S":    {tlsRequest, &tls.Config{}, true, "S"},
		"a part of the handshake": {tlsRequest + clientHello, &tls.Config{}, false, "SE"}, // data before S
		"a handshake beyond the limit": {
			"\x16\x03\x01\x40\x00\x01\x00\xff\xff\x03\x03" + strings.Repeat("x", 0x4000-6) + "\x16\x03\x01\x40\x00",
			&tls.Config{}, false, "",
		},
		"a part of direct TLS":      {clientHello, &tls.Config{}, true, ""},
		"direct TLS, not supported": {clientHello, nil, false, ""},
		"HTTP":                      {"GET / HTTP/1.1\r\n\r\n", nil, false, ""},
		"zeros":                     {"\x00\x00\x00\x00\x00\x00\x00\x00", nil, false, ""},
		"a length beyond the limit": {"\x00\x00\x27\x19\x00\x03\x00\x00user\x00", nil, false, ""},
		"a part of a cancel":        {"\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00", nil, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Server{Upstream: u, Password: "secret", TLS: test.tls}
				s.setUp()
				client, network := net.Pipe()
				defer client.Close()
				begun := time.Now()
				s.accept(network)
				if test.sent != "" {
					go client.Write([]byte(test.sent))
				}
				answer, err := io.ReadAll(client)
				want := time.Duration(0)
				if test.waits {
					want = DefaultStartupTimeout
				}
				if took := time.Since(begun); took != want || err != nil || !strings.HasPrefix(string(answer), test.answer) {
					t.Errorf("answered %q and dropped after %s, error %v; want %q and %s", answer, took, err, test.answer, want)
				}
				s.running.Wait()
				if stats := s.Stats(); stats.Open != 0 || stats.Sessions != 0 || stats.Login.Count() != 0 {
					t.Errorf("%+v", stats)
				}
			})
		})
	}
}

func TestShutdown_DoesNotWaitForClientsWithoutPassword(t *testing.T) {
	u := unreached(t)
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Upstream: u, Password: "secret", StartupTimeout: time.Hour}
		s.setUp()
		connect := func(sent string) (answer func() []byte) {
			client, network := net.Pipe()
			s.accept(network)
			var received bytes.Buffer
			done := make(chan struct{})
			go func() {
				defer close(done)
				io.Copy(&received, client)
				client.Close()
			}()
			if sent != "" {
				client.Write([]byte(sent))
			}
			return func() []byte {
				<-done
				return received.Bytes()
			}
		}
		silent, asked := connect(""), connect(startupMessage)
		synctest.Wait()
		begun := time.Now()
		if err := s.Shutdown(context.Background()); err != nil || time.Since(begun) > 0 {
			t.Errorf("error %v after %s", err, time.Since(begun))
		}
		if answer := asked(); !bytes.Contains(answer, []byte("57P03")) {
			t.Errorf("the client that is asked for the password is answered %q", answer)
		}
		if answer := silent(); len(answer) > 0 {
			t.Errorf("the client that sent nothing is answered %q", answer)
		}
	})
}
