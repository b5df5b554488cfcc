package pgwire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// tcpPair returns the two ends of a connection.
func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{dialed, accepted} {
		c.SetDeadline(time.Now().Add(time.Minute))
		t.Cleanup(func() { c.Close() })
	}
	return dialed.(*net.TCPConn), accepted.(*net.TCPConn)
}

// newRelay returns a running Relay, the connections of its client and its server,
// and a channel that is closed when it has ended.
func newRelay(t *testing.T, r *Relay) (client, server *net.TCPConn, done chan struct{}) {
	t.Helper()
	client, nearClient := tcpPair(t)
	nearServer, server := tcpPair(t)
	for _, c := range []net.Conn{nearClient, nearServer} {
		c.SetDeadline(time.Time{})
	}
	r.Client, r.Server, done = NewConn(nearClient), NewConn(nearServer), make(chan struct{})
	go func() {
		defer close(done)
		r.Run()
	}()
	return client, server, done
}

func TestRelay_PassesOnWhatWasReadBefore(t *testing.T) {
	client, server, _ := newRelay(t, &Relay{FromClient: []byte("from client, "), FromServer: []byte("from server, ")})
	for name, test := range map[string]struct {
		from, to net.Conn
	}{"from client": {client, server}, "from server": {server, client}} {
		if _, err := test.from.Write([]byte("and then")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(name+", and then"))
		if _, err := io.ReadFull(test.to, got); err != nil || string(got) != name+", and then" {
			t.Errorf("%q, error %v", got, err)
		}
	}
}

func TestRelay_PassesOnEnds(t *testing.T) {
	client, server, done := newRelay(t, new(Relay))
	if _, err := client.Write([]byte("query")); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(server); err != nil || string(got) != "query" {
		t.Errorf("the server got %q, error %v", got, err)
	}
	answer := strings.Repeat("answer", 1_000_000)
	go func() {
		_, _ = server.Write([]byte(answer))
		server.Close()
	}()
	if got, err := io.ReadAll(client); err != nil || string(got) != answer {
		t.Errorf("the client got %d bytes, error %v", len(got), err)
	}
	<-done
}

// TestRelay_DeliversLastWords has the server end while the client sends.
func TestRelay_DeliversLastWords(t *testing.T) {
	client, server, done := newRelay(t, new(Relay))
	go func() {
		for {
			if _, err := client.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}()
	if _, err := io.ReadFull(server, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	_ = server.CloseWrite()
	got := make([]byte, len("last words"))
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "last words" {
		t.Errorf("the client got %q, error %v", got, err)
	}
	server.Close()
	client.Close()
	<-done
}

func TestRelay_StopTellsClientsBetweenMessages(t *testing.T) {
	failure := &Error{Code: "57P01", Message: "the end"}
	for name, test := range map[string]struct {
		sent string
		told bool
	}{
		"ready":       {"C\x00\x00\x00\x05\x00Z\x00\x00\x00\x05I", true},
		"in a result": {"D\x00\x00\x00\xff\x00", false},
		"nothing yet": {"", false},
	} {
		r := new(Relay)
		client, server, done := newRelay(t, r)
		for i := range len(test.sent) { // one byte at a time
			if _, err := server.Write([]byte{test.sent[i]}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		r.Stop(failure)
		rest, err := io.ReadAll(client)
		if err != nil || bytes.Equal(rest, failure.Encode()) != test.told || !test.told && len(rest) > 0 {
			t.Errorf("%s: the client is told %q, error %v", name, rest, err)
		}
		client.Close()
		<-done
	}
}

func TestRelay_StopEndsClientThatDoesNotRead(t *testing.T) {
	r := new(Relay)
	_, server, done := newRelay(t, r)
	go func() {
		for {
			if _, err := server.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}()
	for previous := int64(-1); ; time.Sleep(50 * time.Millisecond) {
		_, sent := r.Bytes()
		if sent == previous && sent > 0 { // the client's window is full
			break
		}
		previous = sent
	}
	r.Stop(&Error{})
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("the session goes on")
	}
}

// Neither side reads, and both have TLS, whose end must be sent too.
func TestRelay_StopEndsSessionThatIsStuck(t *testing.T) {
	secure := func(near, far *net.TCPConn) (*tls.Conn, *tls.Conn) {
		near.SetDeadline(time.Time{})
		outer := tls.Server(far, tlsConfig(t))
		inner := tls.Client(NewConn(near), &tls.Config{InsecureSkipVerify: true})
		go outer.Handshake()
		if err := inner.Handshake(); err != nil {
			t.Fatal(err)
		}
		return inner, outer
	}
	nearClient, client := secure(tcpPair(t))
	nearServer, server := secure(tcpPair(t))
	r, done := &Relay{Client: nearClient, Server: nearServer}, make(chan struct{})
	go func() {
		defer close(done)
		r.Run()
	}()
	for _, side := range []*tls.Conn{client, server} {
		go func() {
			for {
				if _, err := side.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}()
	}
	for previous := [2]int64{-1, -1}; ; time.Sleep(100 * time.Millisecond) {
		received, sent := r.Bytes()
		if now := [2]int64{received, sent}; now == previous && received > 0 && sent > 0 {
			break
		} else {
			previous = now
		}
	}
	begun := time.Now()
	r.Stop(&Error{})
	<-done
	if took := time.Since(begun); took >= 5*time.Second {
		t.Errorf("the session ended after %s", took)
	}
}

// tlsConfig returns a configuration with a new certificate.
func tlsConfig(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestConn_DrainDoesNotWait(t *testing.T) {
	near, far := tcpPair(t)
	c := NewConn(near)
	if _, err := far.Write([]byte("some")); err != nil {
		t.Fatal(err)
	}
	if err := c.Fill(); err != nil || string(c.buffered()) != "some" {
		t.Fatalf("%q, error %v", c.buffered(), err)
	}
	c.inHaste = true
	got := make([]byte, 10)
	if n, err := c.Read(got); err != nil || string(got[:n]) != "some" {
		t.Errorf("%q, error %v", got[:n], err)
	}
	if _, err := c.Read(got); !errors.Is(err, errWouldBlock) {
		t.Errorf("error %v", err)
	}
	c.inHaste = false
	far.Close()
	if _, err := c.Read(got); !errors.Is(err, io.EOF) {
		t.Errorf("error %v at the end", err)
	}
	if c.buffer != nil {
		t.Error("the buffer is kept")
	}
}
