package entrapg

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
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
	said := serverErrors(err)
	method := methodHint(err)
	if len(said) == 0 && method == "" {
		return fmt.Errorf("entrapg: %w", err)
	}
	e := &LoginError{User: user, Err: err}
	switch {
	case password && (method != "" || slices.ContainsFunc(said, isRefusal)):
		e.Hint = "entra_credential=none logs in with the DSN's own password: check that there is one, and the user"
	case password:
	case method != "":
		e.Hint = method
	default:
		for i := 0; i < len(said) && e.Hint == ""; i++ {
			e.Hint = hint(said[i])
		}
	}
	return e
}

// methodHint explains a server that wants something else than a token, empty for
// one that does not. Azure asks an Entra role for a cleartext password and every
// other role for SCRAM, which pgx refuses as settings.config.RequireAuth has it,
// or fails at where the DSN's require_auth allows it.
func methodHint(err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, "failed SASL auth"), strings.Contains(text, "failed: server requested"):
		return hintNotMapped
	case strings.Contains(text, "failed: server did not complete authentication"):
		return hintNotAsked
	default:
		return ""
	}
}

// isRefusal reports whether the server refused the login itself: SQLSTATE
// class 28, invalid authorization specification.
func isRefusal(e *pgconn.PgError) bool { return strings.HasPrefix(e.Code, "28") }

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

// serverErrors collects what every host said. pgx joins the errors of all
// attempts, of which errors.As would find the first alone.
func serverErrors(err error) []*pgconn.PgError {
	switch e := err.(type) { //nolint:errorlint // this is the walk that errors.As would do
	case nil:
		return nil
	case *pgconn.PgError:
		return []*pgconn.PgError{e}
	case interface{ Unwrap() error }:
		return serverErrors(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*pgconn.PgError
		for _, e := range e.Unwrap() {
			all = append(all, serverErrors(e)...)
		}
		return all
	default:
		return nil
	}
}

const hintNotMapped = "the server asks this role for an ordinary password, so no Entra principal is mapped to it: create the role with pgaadauth_create_principal, or set user to one that is mapped"

const hintNotAsked = "the server asks for no token, as none of Azure's does: for one that is meant to let everybody in, set entra_credential=none, or require_auth=none,password"

// hints gives what Azure's servers say a meaning. A row fits where the SQLSTATE
// begins with its code and the message contains all its fragments; the first
// one that fits wins. Microsoft has worded these messages in two ways so far
// ("does not" and "doesn't", "retry" and "try again"), so fragments keep to
// what both have. Some are documented at
// https://learn.microsoft.com/azure/postgresql/security/security-entra-configure,
// the others were collected from public reports.
var hints = []struct {
	code      string
	fragments []string
	hint      string
}{
	{"", []string{"access token", "expired"}, "the token expired before it reached the server: check that this machine's clock is right"},
	{"", []string{"valid audience claim", "token.postgres.cosmos.azure.com"}, "the token is for another service: Azure Cosmos DB for PostgreSQL wants entra_scope=https://token.postgres.cosmos.azure.com/.default"},
	{"", []string{"valid audience claim"}, "the token is for another service or cloud: set entra_scope to the resource that the server names, followed by /.default"},
	{"", []string{"access token", "invalid format"}, "the token was altered or cut on its way: pass on exactly what the credential returned"},
	{"", []string{"error occurred while validating the access token"}, "the server takes this for no token of its tenant: check that the identity belongs to the tenant that the server trusts"},
	{"", []string{"valid oid claim"}, "the token names no object: log in as a user, a service principal or a managed identity"},
	{"", []string{"cannot generate", "AAD_AUTH_TOKENTYPE_APP_USER"}, "a person's token was used for the role of a service: log in as that service, set user to your own role, or create the role again with type user"},
	{"", []string{"is neither", "AAD_AUTH_TOKENTYPE_APP_USER"}, "an application's or managed identity's token was used for a person's role: set user to the identity's own role, or create the role again with type service"},
	{"", []string{"does not contain group"}, "the token does not say that this identity is in the role's group: a membership newer than the token shows in the next one"},
	{"", []string{"access token not valid for role"}, "the token belongs to somebody else than the role: check the user"},
	{"28", []string{"no pg_hba.conf entry", "no encryption"}, "the server wants TLS: remove sslmode=disable"},
	{"28", []string{"no pg_hba.conf entry"}, "the server's rules let this user in from no such address or to no such database: check the firewall and the database's name"},
	{"08P01", []string{"password authentication failed"}, hintPgBouncer},
	{"", []string{"partial pkt in startup phase"}, hintPgBouncer},
	{"28P01", nil, "no such role, or none that is mapped to this identity: role names are case-sensitive; create the role with pgaadauth_create_principal, or set user to the name it has"},
}

const hintPgBouncer = "PgBouncer on port 6432 could not handle the token, as older ones fail on long ones: connect to port 5432, or log in as a managed identity, whose token is short"

func hint(e *pgconn.PgError) string {
	said := strings.ToLower(e.Message + "\n" + e.Detail + "\n" + e.Hint)
	for _, row := range hints {
		fits := strings.HasPrefix(e.Code, row.code)
		for _, fragment := range row.fragments {
			fits = fits && strings.Contains(said, strings.ToLower(fragment))
		}
		if fits {
			return row.hint
		}
	}
	return ""
}
