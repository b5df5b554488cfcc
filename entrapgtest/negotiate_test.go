package entrapgtest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
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
		"3.0":                      startup(3, 0, user+"\x00"),
		"3.0 with options":         startup(3, 0, "_pq_.a\x001\x00"+user+"_pq_.b\x00\x00\x00"),
		"3.1":                      startup(3, 1, user+"\x00"),
		"3.2":                      startup(3, 2, user+"\x00"),
		"3.2 with options":         startup(3, 2, user+"_pq_.a\x001\x00_pq_.b\x00\x00\x00"),
		"3.2 with an option twice": startup(3, 2, user+"_pq_.a\x001\x00_pq_.a\x002\x00\x00"),
		"3.2 without a user":       startup(3, 2, "\x00"),
		"3.2, no terminator":       startup(3, 2, user),
		"3.65535":                  startup(3, 65535, user+"_pq_.\x00\x00\x00"),
		"option, no user":          startup(3, 0, "_pq_.a\x001\x00\x00"),
		"option in upper case":     startup(3, 0, user+"_PQ_.a\x001\x00\x00"),
		"3.9999":                   startup(3, 9999, user+"_pq_.test_protocol_negotiation\x00\x00\x00"),
		"0.0":                      startup(0, 0, user+"\x00"),
		"0.1":                      startup(0, 1, user+"\x00"),
		"1.0":                      startup(1, 0, user+"\x00"),
		"2.0":                      startup(2, 0, user+"\x00"),
		"2.0 of fixed length":      startup(2, 0, string(make([]byte, 288))),
		"4.0":                      startup(4, 0, user+"\x00"),
		"1234.5681":                startup(1234, 5681, user+"\x00"),
		"65535.0":                  startup(65535, 0, user+"\x00"),
		"no user":                  startup(3, 0, "database\x00postgres\x00\x00"),
		"empty user":               startup(3, 0, "user\x00\x00\x00"),
		"user, then empty":         startup(3, 0, user+"user\x00\x00\x00"),
		"replication":              startup(3, 2, user+"replication\x00maybe\x00\x00"),
		"empty replication":        startup(3, 0, user+"replication\x00\x00\x00"),
		"replication, no user":     startup(3, 0, "replication\x00o\x00\x00"),
		"longest":                  startup(3, 0, user+"options\x00"+strings.Repeat(" ", 10_004-8-len(user)-8-2)+"\x00\x00"),
		"no terminator":            startup(3, 0, "user\x00"),
		"nothing":                  startup(3, 0, ""),
		"too long":                 startup(3, 0, user+"options\x00"+string(bytes.Repeat([]byte{' '}, 10_000))+"\x00\x00"),
		"too short":                {0, 0, 0, 7, 0, 3, 0},
		"GSS requests":             append(startup(1234, 5680, ""), startup(1234, 5680, "")...),
		"cancel request":           startup(1234, 5678, "\x00\x00\x00\x01\x00\x00\x00\x01"),
		"long cancel request":      startup(1234, 5678, "\x00\x00\x00\x01"+string(make([]byte, 32))),
		"short cancel request":     startup(1234, 5678, "\x00\x00\x00\x01"),
	} {
		got, want := answers(t, "tcp", s.Addr(), message), answers(t, network, address, message)
		if !slices.Equal(got, want) {
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

// answers returns a server's answers before it authenticates the client, without the
// locations of errors in PostgreSQL's source. The front rejects the client instead of
// authenticating it, because the client does not use TLS.
func answers(t *testing.T, network, address string, message []byte) []string {
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
	var all []string
	for r := bufio.NewReader(conn); ; {
		kind, err := r.ReadByte()
		switch {
		case err != nil || kind == 'R':
			return all
		case kind == 'N': // does not support GSS encryption
			all = append(all, "N")
			continue
		}
		if old, _ := r.Peek(4); string(old) == "FATA" { // of protocol 2
			rest, _ := io.ReadAll(r)
			return append(all, string(rest))
		}
		length := make([]byte, 4)
		if _, err := io.ReadFull(r, length); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, binary.BigEndian.Uint32(length)-4)
		if _, err := io.ReadFull(r, body); err != nil {
			t.Fatal(err)
		}
		text := string(kind) + string(body)
		if kind == 'E' {
			if text = withoutLocation(body); strings.Contains(text, "no encryption") {
				return all
			}
		}
		all = append(all, text)
	}
}

func withoutLocation(body []byte) string {
	text := "E"
	for field := range bytes.SplitSeq(bytes.TrimRight(body, "\x00"), []byte{0}) {
		if !bytes.ContainsAny(field[:1], "FLR") {
			text += string(field) + "\x00"
		}
	}
	return text
}
