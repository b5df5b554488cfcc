package entrapg_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A scriptedServer listens on a loopback address and answers each login with a script.
type scriptedServer struct {
	port   int
	script func(*scriptedLogin)

	mu       sync.Mutex // guards the following
	dials    int
	logins   int
	received bytes.Buffer // all that clients sent
	bearers  []string     // tokens received by OAUTHBEARER
}

// A scriptedLogin is a connection to a scriptedServer whose startup message has been read.
type scriptedLogin struct {
	net.Conn
	server *scriptedServer
	number int // 1 for the server's first login
}

func newScriptedServer(t *testing.T, script func(*scriptedLogin)) *scriptedServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scriptedServer{port: listener.Addr().(*net.TCPAddr).Port, script: script}
	ended := make(chan struct{})
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.dials++
			s.mu.Unlock()
			sessions.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(time.Minute))
				s.serve(conn, ended)
			})
		}
	})
	t.Cleanup(func() { listener.Close(); close(ended); sessions.Wait() })
	return s
}

// serve runs the script for a login. It keeps a connection for a cancel request open until the test
// ends.
func (s *scriptedServer) serve(conn net.Conn, ended <-chan struct{}) {
	l := &scriptedLogin{Conn: conn, server: s}
	const protocolVersion3 = 3
	switch startup := l.body(0); {
	case len(startup) < 4:
	case binary.BigEndian.Uint16(startup) != protocolVersion3:
		<-ended
	default:
		s.mu.Lock()
		s.logins++
		l.number = s.logins
		s.mu.Unlock()
		s.script(l)
	}
}

// send sends each message in two parts, as a network may split it.
func (l *scriptedLogin) send(messages ...pgproto3.BackendMessage) {
	for _, message := range messages {
		b := encode(message)
		l.Write(b[:len(b)/2])
		l.Write(b[len(b)/2:])
	}
}

// receive returns the body of the client's next message, nil if there is none.
func (l *scriptedLogin) receive() []byte { return l.body(1) }

// body reads a message that begins with head bytes and its length.
func (l *scriptedLogin) body(head int) []byte {
	start := make([]byte, head+4)
	if _, err := io.ReadFull(l, start); err != nil {
		return nil
	}
	body := make([]byte, max(0, min(int(binary.BigEndian.Uint32(start[head:]))-4, 1<<17)))
	n, _ := io.ReadFull(l, body)
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.server.received.Write(body[:n])
	return body[:n]
}

// password requests a cleartext password and returns it.
func (l *scriptedLogin) password() string {
	l.send(&pgproto3.AuthenticationCleartextPassword{})
	return strings.TrimSuffix(string(l.receive()), "\x00")
}

// bearer requests a token by OAUTHBEARER and returns it.
func (l *scriptedLogin) bearer() string {
	l.send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"OAUTHBEARER"}})
	_, token, _ := strings.Cut(string(l.receive()), "auth=Bearer ")
	token, _, _ = strings.Cut(token, "\x01")
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.server.bearers = append(l.server.bearers, token)
	return token
}

// accept accepts the login and serves the client until it disconnects. The messages, if any, replace
// the usual ones before ReadyForQuery.
func (l *scriptedLogin) accept(messages ...pgproto3.BackendMessage) {
	l.send(&pgproto3.AuthenticationOk{})
	l.send(messages...)
	if len(messages) == 0 {
		l.send(aNotice, aKey)
	}
	l.send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	io.Copy(io.Discard, l)
}

const expiredMessage = "The access token has expired. Acquire a new token and try again."

func (l *scriptedLogin) reject(code string) {
	l.send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: expiredMessage})
}

var (
	aNotice = &pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "a notice"}
	aKey    = &pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}}
)

func (s *scriptedServer) counts() (dials, logins int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials, s.logins
}

// dsn returns a DSN with n hosts, all of which are the server.
func (s *scriptedServer) dsn(n int) string {
	hosts, ports := "127.0.0.1", fmt.Sprint(s.port)
	return fmt.Sprintf("host=%s%s port=%s%s user=app sslmode=disable",
		hosts, strings.Repeat(","+hosts, n-1), ports, strings.Repeat(","+ports, n-1))
}

// waitForToken waits until a client has sent as many bytes as a token has, or until ctx ends.
func (s *scriptedServer) waitForToken(ctx context.Context) {
	for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := s.received.Len()
		s.mu.Unlock()
		if n > 1024 {
			return
		}
	}
}

// scram requests SCRAM and runs the server's side up to the client's proof. It returns the proof and
// the messages that it is computed from.
func (l *scriptedLogin) scram() (proof []byte, message string) {
	l.send(aNotice, &pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}})
	_, first, _ := strings.Cut(string(l.receive()), "n=")
	first = "n=" + first
	_, nonce, found := strings.Cut(first, "r=")
	if !found {
		return nil, ""
	}
	challenge := "r=" + nonce + "server,s=" + base64.StdEncoding.EncodeToString(scramSalt) + ",i=4096"
	l.send(&pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)})
	final, encoded, _ := strings.Cut(string(l.receive()), ",p=")
	proof, _ = base64.StdEncoding.DecodeString(encoded)
	return proof, first + "," + challenge + "," + final
}

var (
	md5Salt   = [4]byte{1, 2, 3, 4}
	scramSalt = []byte("0123456789abcdef")
)
