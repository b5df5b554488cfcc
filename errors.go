package entrapg

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/internal/credfail"
	"github.com/entrapg/entrapg/internal/inspect"
	"github.com/entrapg/entrapg/internal/pgfail"
)

// ErrClosed is returned by Connect and Credentials after Close, and by calls that wait
// for a token when Close is called.
var ErrClosed = errors.New("entrapg: the connector is closed")

// A ConfigError reports an invalid DSN or option. It is returned before a token is
// requested and before anything is dialed. The exception is a hook or name
// resolution that makes a connection unsafe for a token; no token is sent then.
type ConfigError struct {
	Setting string // a key of the DSN, "dsn" for the whole DSN, or the name of an option or of a field that a hook sets
	Origin  string // a variable such as PGSSLMODE, "service NAME in FILE", or "claim NAME" of the token; empty for the DSN and options
	Problem string // the problem, and what to do
	Err     error  // the cause, or nil

	fix inspect.Fix // for cmd/entrapg
}

func (e *ConfigError) Error() string {
	setting := e.Setting
	if e.Origin != "" {
		setting += " (" + e.Origin + ")"
	}
	return "entrapg: " + setting + ": " + e.Problem
}

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// A TokenError reports that there is no token to log in with: the credential
// failed, timed out or returned an invalid token. If it is returned alone, no
// server has been dialed. If a rejected token cannot be replaced, it is joined to
// the LoginError.
//
// Its text is one line. Its cause has all details, such as the HTTP response: it is
// the credential's own error, for example *azidentity.AuthenticationFailedError,
// unless that error contains a token; then it is replaced. If the caller's context is
// done, it is the context's error.
type TokenError struct {
	Credential string // the credential's type, without the package if it is azidentity's
	Scope      string // of the token
	Hint       string // what the error means and what to do; empty if nothing is known
	Err        error  // the cause
}

func (e *TokenError) Error() string {
	if e.Hint == "" {
		return e.problem()
	}
	return strings.TrimSuffix(e.problem(), ".") + ": " + e.Hint
}

// problem returns the error without the hint.
func (e *TokenError) problem() string {
	cause := credfail.Summarize(fmt.Sprint(e.Err))
	return fmt.Sprintf("entrapg: no token from %s for %s: %s", e.Credential, e.Scope, cause)
}

// Unwrap returns the cause.
func (e *TokenError) Unwrap() error { return e.Err }

// A UsernameError reports that there is no PostgreSQL user to log in as: none is
// set and the token does not identify one, or the name cannot be that of a role.
// Setting user in the DSN fixes it. No server has been dialed, unless a
// BeforeConnect hook set the name.
type UsernameError struct {
	Problem string   // the problem; Error adds what to do
	Claims  []string // names of the token's claims, sorted; nil if the token was not read
	Err     error    // the cause, or nil
}

func (e *UsernameError) Error() string {
	text := "entrapg: no PostgreSQL user: " + e.Problem
	if e.Err != nil {
		text += ": " + strings.TrimPrefix(e.Err.Error(), "entrapg: ")
	}
	if len(e.Claims) > 0 {
		text += "; the token has the claims " + strings.Join(e.Claims, ", ")
	}
	return text + "; set user= in the DSN to the role's name"
}

// Unwrap returns the cause.
func (e *UsernameError) Unwrap() error { return e.Err }

// A LoginError reports that a server did not accept a login: it rejected the
// token or the user (SQLSTATE class 28), requested another authentication
// method, or failed for another reason such as a database that does not exist
// (3D000) or too many connections (53300). Its cause is pgx's error, in which
// errors.As finds the *pgconn.PgError with the server's own message. There is no
// PgError if the connection breaks when the token is sent, which happens with old
// versions of PgBouncer.
type LoginError struct {
	User string // PostgreSQL user of the attempt
	Hint string // what the error means on Azure and what to do; empty if nothing is known
	Err  error  // pgx's error

	kind pgfail.Kind // for cmd/entrapg

	// lookup, if not nil, is the reason that the login used the application's name or
	// ID instead of the identity's name. Unwrap does not return it, because a
	// TokenError there would mean that no server was dialed.
	lookup *TokenError
}

func (e *LoginError) Error() string {
	text := fmt.Sprintf("entrapg: login as %q failed: %v", e.User, e.Err)
	if e.Hint != "" {
		text += ": " + e.Hint
	}
	if e.lookup != nil {
		text += "; the name of the identity could not be looked up: " + strings.TrimPrefix(e.lookup.problem(), "entrapg: ")
	}
	return text
}

// Unwrap returns the cause.
func (e *LoginError) Unwrap() error { return e.Err }

// loginError converts pgx's error for a login with config to a LoginError if a server
// answered, or if the reason that it did not answer is known.
func loginError(config *pgconn.Config, err error, d loginDetails) error {
	responses := pgfail.ServerErrors(err)
	wrongMethod := pgfail.WrongMethod(err) || pgfail.IsBearerRejection(err)
	diagnosis := diagnose(config, err, d)
	if len(responses) == 0 && !wrongMethod && diagnosis.Hint == "" {
		if hint := pgfail.Network(err); hint != "" {
			return fmt.Errorf("entrapg: %w: %s", err, hint)
		}
		return fmt.Errorf("entrapg: %w", err)
	}
	e := &LoginError{User: config.User, Hint: diagnosis.Hint, Err: err, kind: diagnosis.Kind}
	if wrongMethod || slices.ContainsFunc(responses, pgfail.IsRejection) {
		e.lookup = d.lookup
	}
	return e
}

// diagnose returns the diagnosis of pgx's error for a login with config.
func diagnose(config *pgconn.Config, err error, details loginDetails) pgfail.Diagnosis {
	login := pgfail.Login{
		User: config.User, Hosts: hosts(config), Guest: details.guest, Unnamed: details.lookup != nil,
		Password: details.noEntra, TokenCut: details.tokenCut,
	}
	for _, host := range login.Hosts {
		if azure := serviceOf(host); azure != nil {
			login.Scope = azure.scope
			break
		}
	}
	d := pgfail.Classify(err, login)
	if d.Kind == pgfail.UnnamedIdentity && details.lookup.Hint != "" {
		d.Hint += "; the request failed because " + details.lookup.Hint
	}
	if d.Kind.AboutUser() && details.userOrigin != "" {
		d.Hint += "; the user comes from " + details.userOrigin
	}
	return d
}

// Explain returns what an error of a login means on Azure and what to do, or ""
// if nothing is known. It accepts errors of database/sql, pgxpool, pgx and this
// package, wrapped or joined. The explanations of joined errors are separated by
// semicolons. It also explains errors of connections, such as an untrusted
// certificate, and errors of statements that depend on how the program connects,
// such as prepared statements behind PgBouncer.
//
// A [LoginError] and a [TokenError] contain the same text as their Hint. Errors of
// pgxpool do not. The text contains nothing that a server sent, so it can be shown
// to users.
func Explain(err error) string {
	if v := reflect.ValueOf(err); v.Kind() == reflect.Pointer && v.IsNil() {
		return ""
	}
	switch e := err.(type) { //nolint:errorlint // walks the tree as errors.As does
	case *LoginError:
		return e.Hint
	case *TokenError:
		return e.Hint
	case *pgconn.ConnectError:
		if e.Config == nil {
			return Explain(e.Unwrap())
		}
		return cmp.Or(diagnose(e.Config, e, detailsOf(e.Config)).Hint, pgfail.Network(e))
	case *pgconn.PgError:
		return pgfail.Classify(e, pgfail.Login{}).Hint
	case interface{ SQLState() string }: // of another driver
		return pgfail.Classify(&pgconn.PgError{Code: e.SQLState(), Message: err.Error()}, pgfail.Login{}).Hint
	case interface{ Unwrap() error }:
		return Explain(e.Unwrap())
	case interface{ Unwrap() []error }:
		var hints []string
		for _, e := range e.Unwrap() {
			if hint := Explain(e); hint != "" && !slices.Contains(hints, hint) {
				hints = append(hints, hint)
			}
		}
		return strings.Join(hints, "; ")
	}
	return ""
}
