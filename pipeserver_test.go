package entrapg_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
)

// A pipeServer implements as much of PostgreSQL's protocol as a login needs. It uses pipes
// because sockets do not work in a synctest bubble.
type pipeServer struct {
	mu     sync.Mutex
	logins []string // the passwords received
	reject func(password string) *pgproto3.ErrorResponse
}

// options routes a connector's connections to s.
func (s *pipeServer) options() entrapg.Option {
	return entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
		config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
		config.DialFunc = s.dial
	})
}

func (s *pipeServer) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go s.serve(server)
	return client, nil
}

func (s *pipeServer) serve(conn net.Conn) {
	defer conn.Close()
	backend := pgproto3.NewBackend(conn, conn)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	backend.Send(&pgproto3.AuthenticationCleartextPassword{})
	if backend.Flush() != nil || backend.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
		return
	}
	message, err := backend.Receive()
	if err != nil {
		return
	}
	password := message.(*pgproto3.PasswordMessage).Password
	s.mu.Lock()
	s.logins = append(s.logins, password)
	reject := s.reject
	s.mu.Unlock()
	if reject != nil {
		if response := reject(password); response != nil {
			backend.Send(response)
			backend.Flush()
			return
		}
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if backend.Flush() != nil {
		return
	}
	for {
		message, err := backend.Receive()
		if err != nil {
			return
		}
		if _, ok := message.(*pgproto3.Query); ok { // every query is empty, as a ping is
			backend.Send(&pgproto3.EmptyQueryResponse{})
			backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			if backend.Flush() != nil {
				return
			}
		}
	}
}

func (s *pipeServer) setReject(reject func(string) *pgproto3.ErrorResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reject = reject
}

func (s *pipeServer) passwords() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.logins)
}

func (s *pipeServer) last() string {
	all := s.passwords()
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

// rejectTokens returns a reject function that treats the given tokens as expired.
func rejectTokens(passwords ...string) func(string) *pgproto3.ErrorResponse {
	return func(password string) *pgproto3.ErrorResponse {
		if !slices.Contains(passwords, password) {
			return nil
		}
		return &pgproto3.ErrorResponse{
			Severity: "FATAL", Code: "28000",
			Message: "The access token has expired. Acquire a new token and try again.",
		}
	}
}

// expiring returns a credential whose tokens are valid for life, and a reject function that rejects
// expired ones.
func expiring(life time.Duration) (azcore.TokenCredential, func(string) *pgproto3.ErrorResponse) {
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		expires := time.Now().Add(life)
		return azcore.AccessToken{Token: expires.Format(time.RFC3339Nano), ExpiresOn: expires}, nil
	})
	return credential, func(token string) *pgproto3.ErrorResponse {
		if expires, err := time.Parse(time.RFC3339Nano, token); err == nil && time.Now().Before(expires) {
			return nil
		}
		return rejectTokens(token)(token)
	}
}

// rejectEveryLogin is a reject function for a role that does not exist.
func rejectEveryLogin(string) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{
		Severity: "FATAL", Code: "28P01",
		Message: `password authentication failed for user "app"`,
	}
}

const bubbleDSN = "host=127.0.0.1 user=app sslmode=disable"

// inBubble runs test in a synctest bubble, with a connector that uses credential and a
// pipeServer.
func inBubble(
	t *testing.T, credential azcore.TokenCredential, test func(t *testing.T, c *entrapg.Connector, s *pipeServer),
) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &pipeServer{}
		c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential), entrapg.WithLogger(nil))
		test(t, c, s)
		c.Close()
	})
}

// tcpServer starts a pipeServer on a TCP port, for DSNs that are used without options.
func tcpServer(t *testing.T) (s *pipeServer, dsn string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	s = &pipeServer{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	host, port, _ := net.SplitHostPort(listener.Addr().String())
	return s, fmt.Sprintf("host=%s port=%s user=app sslmode=disable", host, port)
}

// silent routes connections to a server that accepts them and never replies.
func silent() entrapg.Option {
	return entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
		config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go io.Copy(io.Discard, server)
			return client, nil
		}
	})
}
