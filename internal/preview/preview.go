// Package preview lets the command entrapg see how package entrapg would log in,
// step by step, which takes no place in the exported surface.
package preview

import (
	"context"
	"database/sql/driver"
	"time"

	"github.com/jackc/pgx/v5"
)

// Open reads a DSN, pgxpool's settings in it among them. Package entrapg sets it;
// an error is its own. Nothing is dialled and no token asked for yet.
var Open func(dsn string) (*Login, error)

// A Login is what a DSN comes to.
type Login struct {
	Config     *pgx.ConnConfig   // as pgx gets it; without password, and without user where the token tells it
	Said       map[string]string // libpq's settings, as the DSN, its service and some variables have them; no secret
	SSLMode    string
	Credential string // azidentity's name of it; empty with entra_credential=none
	Scope      string // of the tokens
	Azure      bool   // a host is Azure's

	// Token returns what would log in. Where there is no user and none is needed,
	// nobody looks for one.
	Token   func(ctx context.Context, needUser bool) (*Token, error)
	Connect func(context.Context) (driver.Conn, error) // as a connector does
	Close   func()
}

// Entra tells whether a token logs in, and not a password of PostgreSQL's own.
func (l *Login) Entra() bool { return l.Credential != "" }

// A Token is the one that would log in, or the password, and as whom.
type Token struct {
	Value   string
	Expires time.Time // zero for a password
	User    string
	Claim   string // that tells the user; empty where the user is set
}
