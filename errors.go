package entrapg

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/internal/refusal"
)

// A ConfigError reports a DSN or an option that cannot be used. Nothing has
// been dialled, and no token asked for.
type ConfigError struct {
	Setting string // what to change: a key of the DSN, "dsn" for the whole, or the name of an option
	Problem string // what is wrong with it, and what to do
	Err     error  // the cause, nil where there is none
}

func (e *ConfigError) Error() string { return "entrapg: " + e.Setting + ": " + e.Problem }
func (e *ConfigError) Unwrap() error { return e.Err }

// A TokenError reports that there is no token to log in with: the credential
// failed, gave something that cannot be a token, or did not answer in time. The
// server has not been dialled.
//
// Its cause is the credential's own error, for example
// *azidentity.AuthenticationFailedError, or the context's where the caller left.
type TokenError struct {
	Credential string // the credential's type, without its package for those of azidentity
	Scope      string // what the token was to be for
	Err        error
}

func (e *TokenError) Error() string {
	return fmt.Sprintf("entrapg: no token from %s for %s: %v", e.Credential, e.Scope, e.Err)
}
func (e *TokenError) Unwrap() error { return e.Err }

// A UsernameError reports that there is no PostgreSQL user to log in as: none
// is set and the token names nobody, or the name is one that no role can have.
// Setting user in the DSN mends it. The server has not been dialled.
type UsernameError struct {
	Problem string
	Claims  []string // the names of the token's claims, sorted; nil where the token was not looked at
	Err     error    // the cause, nil where there is none
}

func (e *UsernameError) Error() string {
	text := "entrapg: no PostgreSQL user: " + e.Problem
	if len(e.Claims) > 0 {
		text += "; the token has the claims " + strings.Join(e.Claims, ", ")
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + "; set user= in the DSN to the role's name"
}
func (e *UsernameError) Unwrap() error { return e.Err }

// A LoginError reports that the server said no to a login: to the token or the
// user (SQLSTATE class 28), or for any other reason, such as a database that does
// not exist (3D000) or too many connections (53300). Its cause is pgx's error, in
// which errors.As finds the *pgconn.PgError with the server's own words.
type LoginError struct {
	User string // the PostgreSQL user of the attempt
	Hint string // what it means on Azure and what to do, empty where nothing is known
	Err  error
}

func (e *LoginError) Error() string {
	text := fmt.Sprintf("entrapg: login as %q refused: %v", e.User, e.Err)
	if e.Hint != "" {
		text += ": " + e.Hint
	}
	return text
}
func (e *LoginError) Unwrap() error { return e.Err }

var errClosed = errors.New("entrapg: the connector is closed")

// connectError names what kept the server from letting user in, with a token or
// with a password. Where the server said it, that is a LoginError; trouble on the way there stays pgx's.
func connectError(user string, err error, password bool) error {
	said, method := refusal.Said(err)
	if len(said) == 0 && !method {
		return fmt.Errorf("entrapg: %w", err)
	}
	e := &LoginError{User: user, Err: err}
	switch {
	case password && (method || slices.ContainsFunc(said, refusal.IsLogin)):
		e.Hint = "entra_credential=none logs in with the DSN's own password: check that there is one, and the user"
	case !password:
		e.Hint = refusal.Of(err).Hint
	}
	return e
}

// redact removes the secret from what a server said, for one that repeats what it
// was sent. A piece of the secret counts too: servers cut long passwords off.
func redact(e *pgconn.PgError, secret string) {
	const piece = 32
	pieces := map[string]bool{}
	for i := range max(0, len(secret)-piece+1) {
		pieces[secret[i:i+piece]] = true
	}
	for _, field := range []*string{
		&e.Severity, &e.SeverityUnlocalized, &e.Code, &e.Message, &e.Detail, &e.Hint, &e.InternalQuery, &e.Where,
		&e.SchemaName, &e.TableName, &e.ColumnName, &e.DataTypeName, &e.ConstraintName, &e.File, &e.Routine,
	} {
		text := strings.ReplaceAll(*field, secret, redacted)
		var clean strings.Builder
		for len(text) > 0 {
			n := 0
			for len(text) >= n+piece && pieces[text[n:n+piece]] {
				n++
			}
			if n > 0 {
				clean.WriteString(redacted)
				text = text[n+piece-1:]
				continue
			}
			clean.WriteByte(text[0])
			text = text[1:]
		}
		*field = clean.String()
	}
}

const redacted = "[token]"

// webToken is how every token of Entra begins: a JSON object in base64.
var webToken = regexp.MustCompile(`eyJ[\w-]{16,}`)

// withoutToken replaces an error that shows a token, the one given or any that
// looks like Entra's: MSAL, for one, quotes an answer that it cannot read.
func withoutToken(err error, token string) error {
	if err == nil || !webToken.MatchString(err.Error()) && (token == "" || !strings.Contains(err.Error(), token)) {
		return err
	}
	return errors.New("the credential failed, with an error that shows a token and is not repeated here: an answer that could not be read, perhaps")
}
