package entrapg_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
)

// An attack is the behavior of an impostor.
type attack struct {
	tls   string             // reply to SSLRequest; a TLS handshake follows if it starts with S
	names []string           // DNS names in the certificate
	reply []byte             // reply to the startup message
	flood func(n int) []byte // messages sent endlessly after reply
}

// An impostor is a server that an attacker runs in place of the real one.
type impostor struct {
	attack
	addr     string
	caFile   string // certificate of its authority
	identity tls.Certificate

	mu    sync.Mutex // guards the fields below
	ended sync.Cond
	open  int          // connections dialed and not yet closed
	seen  bytes.Buffer // everything received, decrypted
}

func newImpostor(t *testing.T, attack attack) *impostor {
	t.Helper()
	i := &impostor{attack: attack}
	i.ended.L = &i.mu
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := &x509.Certificate{
		SerialNumber: big.NewInt(
			1,
		), DNSNames: attack.names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if len(attack.names) == 1 {
		certificate.IPAddresses = nil
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	i.identity = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	i.caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(i.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i.addr = listener.Addr().String()
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() {
				defer i.count(-1)
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(time.Minute))
				i.serve(conn)
			})
		}
	})
	t.Cleanup(func() { listener.Close(); sessions.Wait() })
	return i
}

// serve records the startup message and the client's answer to the reply.
func (i *impostor) serve(conn net.Conn) {
	head := i.read(conn, 8)
	if bytes.Equal(head, []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}) { // SSLRequest
		io.WriteString(conn, i.tls)
		if strings.HasPrefix(i.tls, "S") {
			conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{i.identity}})
		}
		head = i.read(conn, 8)
	}
	if len(head) < 8 {
		return
	}
	i.read(conn, int(binary.BigEndian.Uint32(head))-8)
	conn.Write(i.reply)
	for n := 0; i.flood != nil; n++ {
		if _, err := conn.Write(i.flood(n)); err != nil {
			return
		}
	}
	if head = i.read(conn, 5); len(head) == 5 {
		i.read(conn, int(binary.BigEndian.Uint32(head[1:]))-4)
	}
}

func (i *impostor) read(conn net.Conn, n int) []byte {
	b := make([]byte, min(max(n, 0), 1<<16))
	n, _ = io.ReadFull(conn, b)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.seen.Write(b[:n])
	return b[:n]
}

func (i *impostor) count(n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.open += n
	i.ended.Broadcast()
}

// Messages of a server.
var (
	loginOK = encode(
		&pgproto3.AuthenticationOk{},
		&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	)
	cleartextRequest = encode(&pgproto3.AuthenticationCleartextPassword{})
	noHBAEntry       = encode(
		&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28000", Message: "no pg_hba.conf entry for host, SSL encryption"},
	)
)

var md5Hash = regexp.MustCompile("md5[0-9a-f]{32}")

// saw summarizes what the impostor received: SECRET, a hash of it, the user, only the ClientHello of
// TLS, or - if nothing was received.
func (i *impostor) saw(secret string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	for i.open > 0 {
		i.ended.Wait()
	}
	switch seen := i.seen.String(); {
	case strings.Contains(seen, secret):
		return "SECRET"
	case md5Hash.MatchString(seen):
		return "hash"
	case strings.Contains(seen, "user\x00"):
		return "user"
	case seen != "":
		return "hello"
	default:
		return "-"
	}
}

// encode encodes server messages.
func encode(messages ...pgproto3.BackendMessage) []byte {
	var out []byte
	for _, m := range messages {
		var err error
		if out, err = m.Encode(out); err != nil {
			panic(err)
		}
	}
	return out
}

// option routes all hosts to the impostor, as spoofed DNS would.
func (i *impostor) option() entrapg.Option {
	return entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
		c.LookupFunc = func(context.Context, string) ([]string, error) { return []string{i.addr}, nil }
		dial := c.DialFunc
		c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err == nil {
				i.count(1)
			}
			return conn, err
		}
	})
}
