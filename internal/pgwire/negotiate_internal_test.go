package pgwire

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// accept accepts a client that does as connect.
func accept(t *testing.T, terms Terms, connect func(net.Conn)) (*Request, error) {
	t.Helper()
	client, network := net.Pipe()
	network.SetDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { network.Close() })
	go func() {
		connect(client)
		client.Close()
	}()
	return terms.Accept(t.Context(), NewConn(network))
}

// startupOf returns a startup message of the given size.
func startupOf(size int) []byte {
	s := Startup{Version: Version30, Parameters: []Parameter{{"user", "u"}, {"padding", ""}}}
	s.Set("padding", strings.Repeat("x", size-len(s.Encode())))
	return s.Encode()
}

func TestAccept_LimitsBytesUntilClientHasAuthenticated(t *testing.T) {
	sent := append(startupOf(4+maxStartup), make([]byte, 4*maxUnauthenticated)...)
	for authenticated, want := range map[bool]int{false: maxUnauthenticated, true: len(sent)} {
		r, err := accept(t, Terms{Newest: Version32}, func(client net.Conn) { client.Write(sent) })
		if err != nil {
			t.Fatal(err)
		}
		if authenticated {
			r.Unlimit()
		}
		rest, err := io.ReadAll(r.Conn)
		if got := 4 + maxStartup + len(rest); got != want || errors.Is(err, errLimit) == authenticated {
			t.Errorf("authenticated %t: got %d bytes and error %v, want %d", authenticated, got, err, want)
		}
	}
}

func TestAccept_LimitsHandshake(t *testing.T) {
	hello := []byte{typeTLSHandshake, 3, 1, 0x20, 0, 1, 0, 0xff, 0xff, 3, 3} // of 65,535 bytes
	record := append(binary.BigEndian.AppendUint16([]byte{typeTLSHandshake, 3, 1}, 0x2000), make([]byte, 0x2000)...)
	hello = append(append(hello, make([]byte, 0x2000-6)...), bytes.Repeat(record, 3)...)
	_, err := accept(t, Terms{TLS: new(tls.Config), Newest: Version32}, func(client net.Conn) { client.Write(hello) })
	if !errors.Is(err, errLimit) {
		t.Errorf("got %v, want an error because of the limit", err)
	}
}

// Long startup messages and keys of post-quantum cryptography are below the limit.
func TestAccept_AcceptsLongestStartupInTLS(t *testing.T) {
	terms := Terms{TLS: ServerTLS(tlsConfig(t)), Newest: Version32}
	r, err := accept(t, terms, func(client net.Conn) {
		secured := tls.Client(client, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn, strings.Repeat("x", 255)}})
		if err := secured.HandshakeContext(context.Background()); err != nil {
			t.Error(err)
		}
		secured.Write(startupOf(4 + maxStartup))
		secured.Write(make([]byte, 4096))
		io.Copy(io.Discard, client)
	})
	if err == nil {
		_, err = io.ReadFull(r.Conn, make([]byte, 4096))
	}
	if err != nil {
		t.Error(err)
	}
}
