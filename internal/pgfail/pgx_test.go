package pgfail_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A host is a script of the messages that a server sends: one after the startup
// message and one after each further message of the client. At the end, it closes
// the connection.
type host []pgproto3.BackendMessage

var (
	askPassword = &pgproto3.AuthenticationCleartextPassword{}
	askMD5      = &pgproto3.AuthenticationMD5Password{}
	askGSS      = &pgproto3.AuthenticationGSS{}
	askSCRAM    = &pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}}
	askBearer   = &pgproto3.AuthenticationSASL{AuthMechanisms: []string{"OAUTHBEARER"}}
	askNothing  = &pgproto3.AuthenticationOk{}
)

func reject(code, message string) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: message}
}

func bearerStatus(status string) *pgproto3.AuthenticationSASLContinue {
	return &pgproto3.AuthenticationSASLContinue{Data: []byte(`{"status":"` + status + `"}`)}
}

func (h host) serve(conn net.Conn) {
	defer conn.Close()
	backend := pgproto3.NewBackend(conn, conn)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	for _, message := range h {
		backend.Send(message)
		if err := backend.Flush(); err != nil {
			return
		}
		switch message.(type) { // as the client's next message is read
		case *pgproto3.AuthenticationCleartextPassword:
			_ = backend.SetAuthType(pgproto3.AuthTypeCleartextPassword)
		case *pgproto3.AuthenticationSASL:
			_ = backend.SetAuthType(pgproto3.AuthTypeSASL)
		}
		if _, err := backend.Receive(); err != nil {
			return
		}
	}
}

// logIn returns pgx's error for a login with a token at hosts, one after the other.
func logIn(t *testing.T, requireAuth string, hosts ...host) error {
	t.Helper()
	dsn := "host="
	for i := range hosts {
		if i > 0 {
			dsn += ","
		}
		dsn += "127.0.0.1"
	}
	config, err := pgconn.ParseConfig(dsn + " user=app password=token sslmode=disable require_auth=" + requireAuth)
	if err != nil {
		t.Fatal(err)
	}
	config.OAuthTokenProvider = func(context.Context) (string, error) { return "token", nil }
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		if len(hosts) == 0 { // to cancel the login that broke off
			return nil, errors.New("no more servers")
		}
		client, server := net.Pipe()
		next := hosts[0]
		hosts = hosts[1:]
		go next.serve(server)
		return client, nil
	}
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err == nil {
		conn.Close(t.Context())
		t.Fatal("the login succeeds")
	}
	return err
}
