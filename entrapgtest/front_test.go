package entrapgtest

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/jackc/pgx/v5"
)

// slowWriter is a connection on a busy machine. Its writes take so long that pgconn begins
// to read in the background.
type slowWriter struct{ net.Conn }

func (c slowWriter) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	time.Sleep(60 * time.Millisecond)
	return n, err
}

// newServer starts a server that uses the shared PostgreSQL.
func newServer(t *testing.T) *Server {
	t.Helper()
	shared, err := Shared()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Start(t.Context(), Config{Upstream: shared.AdminDSN()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestFront_NoBytesAreLostBetweenLoginAndSession(t *testing.T) {
	s := newServer(t)
	app := s.Tenant.NewUserAssignedIdentity("app")
	if err := s.CreateRole(t.Context(), "", app); err != nil {
		t.Fatal(err)
	}
	token, err := app.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{s.config.Audience + "/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	dial := s.backend.config.DialFunc
	s.backend.config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return slowWriter{conn}, err
	}

	config, err := pgx.ParseConfig(s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	config.User, config.Password = app.Name, token.Token
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.Ping(ctx); err != nil {
		t.Errorf("the first answer of the session is lost: %v", err)
	}
}
