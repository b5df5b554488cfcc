package entrapgtest

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestFront_AnswersStartupsAsPostgreSQL sends the same startup messages to the
// front and to the PostgreSQL behind it.
func TestFront_AnswersStartupsAsPostgreSQL(t *testing.T) {
	s := newServer(t)
	network, address := pgconn.NetworkAddress(s.backend.config.Host, s.backend.config.Port)
	user := "user\x00nobody\x00"
	for name, message := range map[string][]byte{
		"3.0":                  startup(3, 0, user+"\x00"),
		"3.0 with options":     startup(3, 0, "_pq_.a\x001\x00"+user+"_pq_.b\x00\x00\x00"),
		"3.1":                  startup(3, 1, user+"\x00"),
		"3.2":                  startup(3, 2, user+"\x00"),
		"3.2 with options":     startup(3, 2, user+"_pq_.a\x001\x00_pq_.b\x00\x00\x00"),
		"3.9999":               startup(3, 9999, user+"_pq_.test_protocol_negotiation\x00\x00\x00"),
		"1.0":                  startup(1, 0, user+"\x00"),
		"2.0":                  startup(2, 0, user+"\x00"),
		"4.0":                  startup(4, 0, user+"\x00"),
		"no user":              startup(3, 0, "database\x00postgres\x00\x00"),
		"empty user":           startup(3, 0, "user\x00\x00\x00"),
		"no terminator":        startup(3, 0, "user\x00"),
		"nothing":              startup(3, 0, ""),
		"too long":             startup(3, 0, user+"options\x00"+string(bytes.Repeat([]byte{' '}, 10_000))+"\x00\x00"),
		"too short":            {0, 0, 0, 7, 0, 3, 0},
		"cancel request":       startup(1234, 5678, "\x00\x00\x00\x01\x00\x00\x00\x01"),
		"short cancel request": startup(1234, 5678, "\x00\x00\x00\x01"),
	} {
		got, want := firstMessage(t, "tcp", s.Addr(), message), firstMessage(t, network, address, message)
		if len(want) > 0 && want[0] != 'v' && want[0] != 'E' { // a request for a password
			want = nil
		}
		if want == nil && len(got) > 0 && got[0] == 'E' { // the front answers only inside TLS
			got = nil
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the front answers %q, PostgreSQL %q", name, got, want)
		}
	}
}

// TestFront_ClosesTLSAfterCancelRequest checks for the closing alert. Without it, OpenSSL
// reports an unexpected EOF, and libpq 17 and newer report a failed cancellation.
func TestFront_ClosesTLSAfterCancelRequest(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	network, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	network.SetDeadline(time.Now().Add(time.Minute))
	// Up to TLS 1.2, an alert has its own record type.
	conn := tls.Client(network, &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"postgresql"}, MaxVersion: tls.VersionTLS12,
	})
	if _, err := conn.Write(startup(1234, 5678, "\x00\x00\x00\x01\x00\x00\x00\x01")); err != nil {
		t.Fatal(err)
	}
	const alert = 21
	if rest, err := io.ReadAll(network); err != nil || len(rest) == 0 || rest[0] != alert {
		t.Errorf("the front ends TLS with %x, error %v; want a record of type %d", rest, err, alert)
	}
}

func startup(major, minor uint16, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	b = binary.BigEndian.AppendUint16(b, major)
	return append(binary.BigEndian.AppendUint16(b, minor), body...)
}

// firstMessage returns the first message that a server sends, without an error's location
// in PostgreSQL's source.
func firstMessage(t *testing.T, network, address string, message []byte) []byte {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 5)
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil
	}
	if bytes.Equal(head, []byte("EFATA")) { // of protocol 2
		rest, _ := io.ReadAll(conn)
		return append(head, rest...)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	if head[0] != 'E' {
		return append(head, body...)
	}
	var kept []byte
	for field := range bytes.SplitSeq(bytes.TrimRight(body, "\x00"), []byte{0}) {
		if !bytes.ContainsAny(field[:1], "FLR") {
			kept = append(append(kept, field...), 0)
		}
	}
	return append([]byte("E"), kept...)
}
