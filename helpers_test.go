package entrapg_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
)

// credentialFunc is a credential made of a function.
type credentialFunc func(ctx context.Context, scope string) (azcore.AccessToken, error)

func (f credentialFunc) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return f(ctx, options.Scopes[0])
}

// numbered is a credential whose tokens are token-1, token-2 and so on.
type numbered struct {
	life   time.Duration
	delay  time.Duration
	frozen bool // hands back its first token for ever

	mu    sync.Mutex
	calls int
	err   error
}

func (n *numbered) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	n.mu.Lock()
	n.calls++
	count, err, delay := n.calls, n.err, n.delay
	n.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return azcore.AccessToken{}, ctx.Err()
	}
	if n.frozen {
		count = 1
	}
	return azcore.AccessToken{Token: fmt.Sprintf("token-%d", count), ExpiresOn: time.Now().Add(n.life)}, err
}

func (n *numbered) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
}

func (n *numbered) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls
}

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

// connect opens a connection and closes it again.
func connect(t *testing.T, c *entrapg.Connector) error {
	t.Helper()
	conn, err := c.Connect(t.Context())
	if err == nil {
		conn.Close()
	}
	return err
}

// mustConnect fails the test where connect does.
func mustConnect(t *testing.T, c *entrapg.Connector) {
	t.Helper()
	if err := connect(t, c); err != nil {
		t.Fatalf("Connect: %v", err)
	}
}

// databaseScope is that of tokens for Azure Database for PostgreSQL in the public cloud.
const databaseScope = "https://ossrdbms-aad.database.windows.net/.default"

func tokenOptions(scope string) policy.TokenRequestOptions {
	return policy.TokenRequestOptions{Scopes: []string{scope}}
}
