// Package inspect gives cmd/entrapg a view of the steps of a login, without
// adding to the exported API of package entrapg.
package inspect

import (
	"context"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/credfail"
	"github.com/entrapg/entrapg/internal/pgfail"
)

// Open parses a DSN, which may contain pgxpool's settings, and does not dial. Its errors are
// those of NewConnector. The Login must be closed. Its functions are safe for concurrent
// use. Package entrapg sets Open.
var Open func(dsn string) (*Login, error)

// FixOf returns the fix for a ConfigError. Package entrapg sets it.
var FixOf func(error) Fix

// KindOf returns the cause of an error of Login.Connect. Package entrapg sets it.
var KindOf func(error) pgfail.Kind

// Credentials returns the names of credentials that entra_credential accepts, without those
// of azidentity. Package entrapg sets it.
var Credentials func() []string

// IsLocal reports whether a host is a socket or this machine, judged by its name only.
// Package entrapg sets it.
var IsLocal func(host string) bool

// A Fix is the machine-readable fix of a ConfigError. The zero value means that only the
// error's message describes the fix.
type Fix struct {
	Key       string // key of the DSN to use instead, with the same meaning
	Variable  string // environment variable to set instead of the setting
	Remove    bool   // remove the setting, which has no counterpart
	Malformed bool   // the value is not a tenant, or not a client ID
	Escape    bool   // the value contains a character that a URL escapes
	Plaintext bool   // the server has no TLS, and sslmode=disable is safe because it is local
}

// A Login describes the login that a DSN configures.
type Login struct {
	Config     *pgx.ConnConfig     // without password, and without user if that is derived from the token
	Settings   connstring.Settings // in effect, without secrets
	SSLMode    string              // in effect
	Credential string              // azidentity's name; empty with entra_credential=none
	Scope      string              // of the tokens
	Azure      bool                // at least one host is Azure's
	Identity   credfail.Settings   // that select the identity

	// Token returns the token or password of a login. If needUser is false, it does not
	// request a second token to derive the user.
	Token func(ctx context.Context, needUser bool) (*Token, error)

	// Derive returns the same token, with the user derived from it even if another user
	// is set. It is nil with entra_credential=none.
	Derive func(context.Context) (*Token, error)

	Connect func(context.Context) (driver.Conn, error) // as a Connector does
	Close   func()
}

// Entra reports whether the login uses a token instead of a PostgreSQL password.
func (l *Login) Entra() bool { return l.Credential != "" }
