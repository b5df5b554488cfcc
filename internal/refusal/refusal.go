// Package refusal knows what Azure's PostgreSQL servers say to a login that they
// refuse, and what that means.
package refusal

import (
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// A Meaning is what a refusal comes down to.
type Meaning struct {
	Cause Cause
	Hint  string // what it means and what to do; empty where nothing is known
}

// Cause tells meanings apart.
type Cause int

// The causes that are known.
const (
	Unknown         Cause = iota
	Expired               // token
	CosmosAudience        // the server is Azure Cosmos DB for PostgreSQL
	Audience              // of the token
	Malformed             // token
	NoToken               // but an ordinary password, or a token of another tenant
	NoObject              // in the token
	PersonAsService       // a person's token for a service's role
	ServiceAsPerson       // the other way round
	NotInGroup            // of the role
	OtherPrincipal        // than the role's
	Plaintext             // attempt
	NotAllowedIn          // from this address, or to this database
	PgBouncer             // could not handle the token
	NotMapped             // the role is one with an ordinary password
	NotAsked              // for a token, nor for anything else
	NoRole                // of that name for this identity
)

// meanings has what servers say. A row fits where the SQLSTATE begins with its
// code and the message contains all its fragments; the first one that fits wins.
// Microsoft has worded these messages in two ways so far ("does not" and
// "doesn't", "retry" and "try again"), so fragments keep to what both have. Some
// are documented at
// https://learn.microsoft.com/azure/postgresql/security/security-entra-configure,
// the others were collected from public reports.
var meanings = []struct {
	code      string
	fragments []string
	meaning   Meaning
}{
	{"", []string{"access token", "expired"}, Meaning{Expired, "the token expired before it reached the server: check that this machine's clock is right"}},
	{"", []string{"valid audience claim", "token.postgres.cosmos.azure.com"}, Meaning{CosmosAudience, "the token is for another service: Azure Cosmos DB for PostgreSQL wants entra_scope=https://token.postgres.cosmos.azure.com/.default"}},
	{"", []string{"valid audience claim"}, Meaning{Audience, "the token is for another service or cloud: set entra_scope to the resource that the server names, followed by /.default"}},
	{"", []string{"access token", "invalid format"}, Meaning{Malformed, "the token was altered or cut on its way: pass on exactly what the credential returned"}},
	{"", []string{"error occurred while validating the access token"}, noToken},
	{"", []string{"valid oid claim"}, Meaning{NoObject, "the token names no object: log in as a user, a service principal or a managed identity"}},
	{"", []string{"cannot generate", "AAD_AUTH_TOKENTYPE_APP_USER"}, Meaning{PersonAsService, "a person's token was used for the role of a service: log in as that service, set user to your own role, or create the role again with type user"}},
	{"", []string{"is neither", "AAD_AUTH_TOKENTYPE_APP_USER"}, Meaning{ServiceAsPerson, "an application's or managed identity's token was used for a person's role: set user to the identity's own role, or create the role again with type service"}},
	{"", []string{"does not contain group"}, Meaning{NotInGroup, "the token does not say that this identity is in the role's group: a membership newer than the token shows in the next one"}},
	{"", []string{"access token not valid for role"}, Meaning{OtherPrincipal, "the token belongs to somebody else than the role: check the user"}},
	{"28", []string{"no pg_hba.conf entry", "no encryption"}, Meaning{Plaintext, "the server wants TLS: remove sslmode=disable"}},
	{"28", []string{"no pg_hba.conf entry"}, Meaning{NotAllowedIn, "the server's rules let this user in from no such address or to no such database: check the firewall and the database's name"}},
	{"08P01", []string{"password authentication failed"}, pgBouncer},
	{"", []string{"partial pkt in startup phase"}, pgBouncer},
	{"28P01", nil, Meaning{NoRole, "no such role, or none that is mapped to this identity: role names are case-sensitive; create the role with pgaadauth_create_principal, or set user to the name it has"}},
}

var (
	pgBouncer = Meaning{PgBouncer, "PgBouncer on port 6432 could not handle the token, as older ones fail on long ones: connect to port 5432, or log in as a managed identity, whose token is short"}
	noToken   = Meaning{NoToken, "the server takes this for no token of its tenant: check that the identity belongs to the tenant that the server trusts"}
	notMapped = Meaning{NotMapped, "the server asks this role for an ordinary password, so no Entra principal is mapped to it: create the role with pgaadauth_create_principal, or set user to one that is mapped"}
	notAsked  = Meaning{NotAsked, "the server asks for no token, as none of Azure's does: for one that is meant to let everybody in, set entra_credential=none, or require_auth=none,password"}
)

// Of returns what an error of pgx means for a login with a token: of what several
// hosts said, the first that is known.
func Of(err error) Meaning {
	if m := method(err); m.Cause != Unknown {
		return m
	}
	said, _ := Said(err)
	for _, e := range said {
		if m := of(e); m.Cause != Unknown {
			return m
		}
	}
	return Meaning{}
}

func of(e *pgconn.PgError) Meaning {
	said := strings.ToLower(e.Message + "\n" + e.Detail + "\n" + e.Hint)
	for _, row := range meanings {
		fits := strings.HasPrefix(e.Code, row.code)
		for _, fragment := range row.fragments {
			fits = fits && strings.Contains(said, strings.ToLower(fragment))
		}
		if fits {
			return row.meaning
		}
	}
	return Meaning{}
}

// Said collects what every host said. Other tells that one wanted something else
// than a token.
func Said(err error) (said []*pgconn.PgError, other bool) {
	return servers(err), method(err).Cause != Unknown
}

// method explains a server that wants something else than a token. Azure asks an
// Entra role for a cleartext password and every other role for SCRAM, which pgx
// refuses by require_auth, or fails at where the DSN allows it.
func method(err error) Meaning {
	if err == nil {
		return Meaning{}
	}
	switch text := err.Error(); {
	case OfBearer(err):
		return noToken
	case strings.Contains(text, "failed SASL auth"), strings.Contains(text, "failed: server requested"):
		return notMapped
	case strings.Contains(text, "failed: server did not complete authentication"):
		return notAsked
	default:
		return Meaning{}
	}
}

// OfBearer reports whether a server refused a token by OAUTHBEARER's own means, of
// which pgx makes an error of no type.
func OfBearer(err error) bool {
	return err != nil && strings.Contains(err.Error(), "OAuth authentication failed: ")
}

// servers walks through an error. pgx joins the errors of all attempts, of which
// errors.As would find the first alone.
func servers(err error) []*pgconn.PgError {
	switch e := err.(type) { //nolint:errorlint // this is the walk that errors.As would do
	case nil:
		return nil
	case *pgconn.PgError:
		return []*pgconn.PgError{e}
	case interface{ Unwrap() error }:
		return servers(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*pgconn.PgError
		for _, e := range e.Unwrap() {
			all = append(all, servers(e)...)
		}
		return all
	default:
		return nil
	}
}

// IsLogin reports whether the server refused the login itself: SQLSTATE class 28,
// invalid authorization specification.
func IsLogin(e *pgconn.PgError) bool { return strings.HasPrefix(e.Code, "28") }
