package entrapgtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A pipeListener accepts pipes, whose deadlines use the clock of a test.
type pipeListener struct{ accepted, closed chan net.Conn }

func newPipeListener() *pipeListener {
	return &pipeListener{make(chan net.Conn), make(chan net.Conn)}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.accepted <- server
	return client
}

// serveWeb serves an empty tenant.
func serveWeb(t *testing.T) (identity *pipeListener) {
	t.Helper()
	identity = newPipeListener()
	w := &webServer{
		entra: newPipeListener(), identity: identity, certificate: &certificate{tls: &tls.Config{}},
		client: new(http.Client),
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.serve(ctx, new(Tenant))
	t.Cleanup(func() {
		cancel()
		w.close()
	})
	return identity
}

func TestWebServer_ClosesConnectionsThatSendNothing(t *testing.T) {
	for name, sent := range map[string]string{
		"nothing":  "",
		"headers":  "GET / HTTP/1.1\r\n",
		"body":     "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nscope=",
		"complete": "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := serveWeb(t).dial()
			begun := time.Now()
			go io.WriteString(conn, sent)
			conn.SetReadDeadline(begun.Add(time.Hour))
			io.Copy(io.Discard, conn)
			if held := time.Since(begun); held > 2*loginTimeout {
				t.Errorf("%s: the connection stays open for %s", name, held)
			}
			conn.Close()
		})
	}
}

func TestWebServer_AnswersWhileClientsHoldConnections(t *testing.T) {
	for name, sent := range map[string]string{
		"nothing":             "",
		"request but no body": "GET /msi/token HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			identity, begun := serveWeb(t), time.Now()
			hold := func() net.Conn {
				conn := identity.dial()
				io.WriteString(conn, sent)
				return conn
			}
			oldest := hold()
			for range maxConnections - 1 {
				defer hold().Close()
			}
			synctest.Wait()
			conn := identity.dial()
			defer conn.Close()
			go io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "404") {
				t.Errorf("%s: the new connection: %q, %v", name, line, err)
			}
			io.Copy(io.Discard, oldest)
			if held := time.Since(begun); held > 0 {
				t.Errorf("%s: the oldest connection stays open for %s", name, held)
			}
		})
	}
}
