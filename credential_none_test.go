package entrapg_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
)

func TestNone_ExistingPasswordIsUsed(t *testing.T) {
	localRole(t, "existing", "correct horse")
	dsn := server().DSN() + "&user=existing&entra_credential=none"
	for name, set := range map[string]func(*pgxpool.Config){
		"set": func(c *pgxpool.Config) { c.ConnConfig.Password = "correct horse" },
		"set by a hook": func(c *pgxpool.Config) {
			c.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error { c.Password = "correct horse"; return nil }
		},
	} {
		config := parsePool(t, dsn)
		set(config)
		if config.ConnConfig.Password != "" {
			connector := entrapg.NewConnectorWithConfig(config.ConnConfig)
			defer connector.Close()
			mustConnect(t, connector)
			if user, password, err := connector.Credentials(t.Context()); user != "existing" ||
				password != "correct horse" || err != nil {
				t.Errorf("Credentials: %q, %q, %v", user, password, err)
			}
		}
		if err := entrapg.ConfigurePool(config); err != nil {
			t.Fatal(err)
		}
		if err := newPool(t, config).Ping(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// localRole creates a role that logs in with a password.
func localRole(t *testing.T, name, password string) {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), server().AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	role := pgx.Identifier{name}.Sanitize()
	if _, err := admin.Exec(t.Context(),
		"drop role if exists "+role+"; create role "+role+" login password '"+password+"'"); err != nil {
		t.Fatal(err)
	}
}

// withLogin adds a user, a password and more settings to a URL.
func withLogin(t *testing.T, dsn, user, password, more string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String() + more
}

func TestNone_LogsInWithPasswordOfDSN(t *testing.T) {
	localRole(t, "developer", "correct horse")
	dsn := withLogin(t, server().DSN(), "developer", "correct horse", "&entra_credential=none")
	db := openByName(t, dsn)
	if user := sessionUser(t, db); user != "developer" {
		t.Errorf("logged in as %q", user)
	}
	// WithScope has no effect without Entra.
	db, c := open(t, dsn, entrapg.WithScope("api://elsewhere/.default"))
	if user := sessionUser(t, db); user != "developer" {
		t.Errorf("with WithScope: logged in as %q", user)
	}
	if stats := c.Stats(); stats.Logins != 1 || stats.TokenRequests != 0 || stats.User != "developer" {
		t.Errorf("Stats: %+v", stats)
	}
	pool := newPool(t, poolConfig(t, dsn))
	var user string
	if err := pool.QueryRow(t.Context(), "select session_user").Scan(&user); err != nil || user != "developer" {
		t.Errorf("pgxpool: logged in as %q, error %v", user, err)
	}
}

func TestNone_WrongPasswordHasHintAndIsNotRetried(t *testing.T) {
	localRole(t, "forgetful", "correct horse")
	c := entrapg.NewConnector(withLogin(t, server().DSN(), "forgetful", "hunter2", "&entra_credential=none"))
	defer c.Close()
	err := connect(t, c)
	var login *entrapg.LoginError
	if !errors.As(err, &login) || login.User != "forgetful" || !strings.Contains(login.Hint, "password") ||
		strings.Contains(login.Hint, "principal") {
		t.Errorf("got %v, want a LoginError with a hint about the password", err)
	}
	out := &rendered{}
	out.addError(err)
	out.add(c)
	if strings.Contains(out.String(), "hunter2") {
		t.Error("the error or the connector contains the password")
	}
	if stats := c.Stats(); stats.LoginsRejected != 1 || stats.LoginRetries != 0 {
		t.Errorf("Stats: %+v", stats)
	}
}

func TestNone_PasswordComesFromPassfileOrPGPASSWORD(t *testing.T) {
	localRole(t, "keeper", "correct horse")
	dsn := strings.Replace(server().DSN(), "postgres://", "postgres://keeper@", 1) + "&entra_credential=none"
	passfile := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(passfile, []byte("*:*:*:keeper:correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("passfile", func(t *testing.T) {
		t.Setenv("PGPASSFILE", passfile)
		sessionUser(t, openByName(t, dsn))
	})
	t.Run("PGPASSWORD", func(t *testing.T) {
		t.Setenv("PGPASSWORD", "correct horse")
		sessionUser(t, openByName(t, dsn))
	})
}

func TestNone_UserMustBeSet(t *testing.T) {
	var username *entrapg.UsernameError
	if err := connect(t,
		entrapg.NewConnector("host=127.0.0.1 entra_credential=none password=p")); !errors.As(err, &username) ||
		!strings.Contains(err.Error(), "user=") {
		t.Errorf("got %v, want a UsernameError", err)
	}
}

func TestNone_TLSIsOptionalExceptForAzure(t *testing.T) {
	for dsn, safe := range map[string]bool{
		"host=postgres sslmode=disable":          true, // another container
		"host=postgres sslmode=prefer":           true,
		"host=/run/postgresql sslmode=disable":   true,
		"host=" + azureName + " sslmode=disable": false,
		"host=" + azureName + " sslmode=prefer":  false,
	} {
		_, err := entrapg.PoolConfig(dsn + " user=u password=hunter2 entra_credential=none")
		var config *entrapg.ConfigError
		switch {
		case safe && err != nil:
			t.Errorf("%s: %v", dsn, err)
		case !safe && (!errors.As(err, &config) || config.Setting != "sslmode" || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s: got %v, want a ConfigError for sslmode", dsn, err)
		}
	}
	config, err := entrapg.PoolConfig("host=db.example.com user=u password=p entra_credential=none")
	if err != nil || config.ConnConfig.TLSConfig == nil || config.ConnConfig.TLSConfig.InsecureSkipVerify ||
		len(config.ConnConfig.Fallbacks) > 0 {
		t.Errorf("without sslmode the server is not verified; error %v", err)
	}
}

// TestNone_PasswordIsInNoRenderedValue does not render pgx.ConnConfig, which keeps the DSN: see
// SECURITY.md.
func TestNone_PasswordIsInNoRenderedValue(t *testing.T) {
	const password = "correct-horse-battery-staple-and-some-more"
	localRole(t, "secretive", password)
	out := &rendered{}
	for _, dsn := range []string{
		withLogin(t, server().DSN(), "secretive", password, "&entra_credential=none"),
		withLogin(t, server().DSN(), "missing", password, "&entra_credential=none"),
		withLogin(t, server().DSN(), "secretive", password, "&entra_credential=none&entra_x=1"),
		withLogin(t, server().DSN(), "secretive", password, "&entra_credential=none&sslmode=x"),
		withLogin(t, server().DSN(), "secretive", password, ""), // a ConfigError without entra_credential=none
		"host=127.0.0.1 port=1 user=u sslmode=disable entra_credential=none password=" + password,
		"host=127.0.0.1 user=u entra_credential=none password='" + password,
		"postgres://u:" + password + "@[::1/?entra_credential=none",
	} {
		c := entrapg.NewConnector(dsn)
		conn, err := c.Connect(t.Context())
		out.addError(err)
		if err == nil {
			out.add(conn.(*stdlib.Conn).Conn().Config().Config)
			conn.Close()
		}
		out.add(c, c.Stats())
		c.Close()
		config, err := entrapg.PoolConfig(dsn)
		out.addError(err)
		if err == nil {
			out.add(config.ConnConfig.Config)
		}
	}
	out.hides(t, password)
}
