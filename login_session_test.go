package entrapg_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
)

var sessionToken = strings.Repeat("secret0123456789", 40)

var sessionAttributes = []string{"read-write", "read-only", "primary", "standby", "prefer-standby"}

// sessionErrors logs in to a server that accepts the login and then answers the query for
// target_session_attrs. It returns the errors of database/sql and pgxpool.
func sessionErrors(t *testing.T, attributes string, answer func(l *scriptedLogin, token string)) map[string]string {
	t.Helper()
	s := newScriptedServer(t, func(l *scriptedLogin) {
		token := l.password()
		l.send(&pgproto3.AuthenticationOk{}, aKey, &pgproto3.ReadyForQuery{TxStatus: 'I'})
		if l.receive() != nil {
			answer(l, token)
		}
	})
	got := map[string]string{}
	for name, err := range failedLogins(t, s.dsn(1)+" target_session_attrs="+attributes,
		entrapg.WithCredential(credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
			return azcore.AccessToken{Token: sessionToken, ExpiresOn: time.Now().Add(time.Hour)}, nil
		})),
		entrapg.WithLogger(nil)) {
		got[name] = fmt.Sprintf("%v\n%+v\n%s", err, err, entrapg.Explain(err))
	}
	return got
}

func TestLogin_SessionCheckDoesNotPanic(t *testing.T) {
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	column := &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x")}}}
	for name, answer := range map[string][]pgproto3.BackendMessage{
		"no result": {&pgproto3.EmptyQueryResponse{}, ready},
		"no row":    {column, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 0")}, ready},
		"no column": {
			&pgproto3.RowDescription{}, &pgproto3.DataRow{},
			&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, ready,
		},
		"nothing": {ready},
	} {
		for _, attributes := range sessionAttributes {
			errs := sessionErrors(t, attributes, func(l *scriptedLogin, _ string) { l.send(answer...) })
			for library, text := range errs {
				if !strings.Contains(text, "the query for target_session_attrs is invalid") {
					t.Errorf("%s, %s, %s: %s", name, attributes, library, text)
				}
			}
		}
	}
}

func TestLogin_SessionCheckDoesNotShowToken(t *testing.T) {
	for _, attributes := range sessionAttributes {
		errs := sessionErrors(t, attributes, func(l *scriptedLogin, token string) {
			l.send(
				&pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: token},
				&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42501", Message: "not with " + token, Detail: token},
				&pgproto3.ReadyForQuery{TxStatus: 'I'},
			)
		})
		for where, text := range errs {
			if strings.Contains(text, sessionToken[:40]) || !strings.Contains(text, "not with [token]") {
				t.Errorf("%s, %s: %s", attributes, where, text)
			}
		}
	}
}

func TestLogin_SessionCheckIsBounded(t *testing.T) {
	row := encode(&pgproto3.DataRow{Values: [][]byte{make([]byte, 1<<16)}})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	errs := sessionErrors(t, "read-write", func(l *scriptedLogin, _ string) {
		l.send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x")}}})
		for range 10_000 {
			if _, err := l.Write(row); err != nil {
				return
			}
		}
	})
	runtime.ReadMemStats(&after)
	for where, text := range errs {
		if !strings.Contains(text, "bytes before the login was complete") {
			t.Errorf("%s: %s", where, text)
		}
	}
	if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 50 {
		t.Errorf("%d MiB allocated", allocated)
	}
}

// A program's own hook may read as much as it likes.
func TestLogin_OwnValidateConnectIsNotBounded(t *testing.T) {
	config, err := pgx.ParseConfig(server().DSN() + "&target_session_attrs=primary")
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	check := config.ValidateConnect
	config.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		results, err := conn.Exec(ctx, "select repeat('x', 1000000)").ReadAll()
		if err == nil {
			read = len(results[0].Rows[0][0])
		}
		return check(ctx, conn)
	}
	c := entrapg.NewConnectorWithConfig(config, entrapg.WithCredential(app(t, server())))
	if err := connect(t, c); err != nil || read != 1_000_000 {
		t.Errorf("read %d bytes, error %v", read, err)
	}
}
