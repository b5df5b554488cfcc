package entrapg_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

func TestServerThatAsksByOAUTHBEARERGetsTheSameToken(t *testing.T) {
	s := start(t, entrapgtest.Config{OAuth: true})
	p := app(t, s)
	if err := newPool(t, poolConfig(t, s.DSN(), entrapg.WithCredential(p))).Ping(t.Context()); err != nil {
		t.Errorf("pgxpool: %v", err)
	}
	db, c := open(t, s.DSN(), entrapg.WithCredential(p), entrapg.WithLogger(nil))
	db.SetMaxIdleConns(0)
	for range 2 {
		if user := sessionUser(t, db); user != p.Name {
			t.Errorf("logged in as %q, want %q", user, p.Name)
		}
		if err := s.RevokeTokens(); err != nil { // the second time, a refused token is replaced
			t.Fatal(err)
		}
	}
	if stats := c.Stats(); stats.LoginRetries != 1 || stats.LoginsRefused != 1 || stats.Logins != 2 {
		t.Errorf("Stats: %+v", stats)
	}
}

func TestRefusalByOAUTHBEARERIsALoginErrorWithAHint(t *testing.T) {
	s := start(t, entrapgtest.Config{OAuth: true})
	owner := app(t, s)
	db, _ := open(t, s.DSN()+"&user="+owner.Name, entrapg.WithCredential(s.Tenant.NewUserAssignedIdentity("mallory")))
	err := db.PingContext(t.Context())
	var login *entrapg.LoginError
	if !errors.As(err, &login) || login.Hint == "" || !strings.Contains(err.Error(), "invalid_token") {
		t.Errorf("got %v, want a LoginError with the server's word and a hint", err)
	}
}

func TestOpenConnectionGivesNoTokenToWhoAsksLater(t *testing.T) {
	s := start(t, entrapgtest.Config{OAuth: true})
	db, _ := open(t, s.DSN(), entrapg.WithCredential(app(t, s)))
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Raw(func(driverConn any) error {
		provide := driverConn.(*stdlib.Conn).Conn().Config().OAuthTokenProvider
		if token, err := provide(t.Context()); token != "" || err == nil {
			t.Errorf("got a token of %d bytes, error %v", len(token), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
