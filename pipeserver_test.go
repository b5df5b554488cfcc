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

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
)

// pipeServer speaks as much of PostgreSQL's protocol as a login takes, over
// pipes: sockets cannot be used in a synctest bubble.
type pipeServer struct {
	mu     sync.Mutex
	logins []string // the passwords that came
	refuse func(password string) *pgproto3.ErrorResponse
}

// options route a connector's connections here.
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
	refuse := s.refuse
	s.mu.Unlock()
	if refuse != nil {
		if refusal := refuse(password); refusal != nil {
			backend.Send(refusal)
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
		if _, err := backend.Receive(); err != nil {
			return
		}
	}
}

func (s *pipeServer) setRefuse(refuse func(string) *pgproto3.ErrorResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = refuse
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

// refuseAll is a pipeServer's refusal of the passwords given.
func refuseAll(passwords ...string) func(string) *pgproto3.ErrorResponse {
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

// refuseEverything is a pipeServer's refusal of a role that it does not have.
func refuseEverything(string) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: `password authentication failed for user "app"`}
}

const bubbleDSN = "host=127.0.0.1 user=app sslmode=disable"

// inBubble runs a test on fake time, with a connector that takes its tokens
// from credential and logs in to a server of pipes.
func inBubble(t *testing.T, credential azcore.TokenCredential, test func(t *testing.T, c *entrapg.Connector, s *pipeServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &pipeServer{}
		c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential), entrapg.WithLogger(nil))
		test(t, c, s)
		c.Close()
	})
}

// tcpServer is a pipeServer on a port, for DSNs that have to do without options.
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

// silent routes connections to a server that takes them and says nothing.
func silent() entrapg.Option {
	return entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
		config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go io.Copy(io.Discard, server)
			return client, nil
		}
	})
}
