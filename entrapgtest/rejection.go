package entrapgtest

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// A rejection is an error with which the server ends a login, and why.
type rejection struct {
	code, message, hint string
	reason              string // for the record of logins
	response            []byte // PostgreSQL's own error; nil if the front rejects the login
}

// Azure's messages. The SQLSTATEs for an expired token, a wrong audience and a wrong
// format are not publicly known; 28000 is used for all of them.
const (
	invalidAuthorization = "28000"
	invalidPassword      = "28P01"
)

// invalid is the rejection of a token without a more exact message.
func invalid(reason string) *rejection {
	return &rejection{
		code: invalidAuthorization, reason: reason,
		message: "An error occurred while validating the access token. Please acquire a new token and retry",
	}
}

// malformed is the rejection of a password that looks like a token but cannot be parsed.
func malformed(reason string) *rejection {
	return &rejection{
		code: invalidAuthorization, reason: reason,
		message: "The access token has invalid format. Please ensure the token is passed exactly as returned by " +
			"the authentication endpoint and retry.",
	}
}

// noEncryption is the rejection of a client without TLS.
func noEncryption(c *client) *rejection {
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	return &rejection{
		code: invalidAuthorization, reason: "no TLS",
		message: fmt.Sprintf("no pg_hba.conf entry for host %q, user %q, database %q, no encryption",
			host, c.login.User, c.login.Database),
	}
}

// unreachable is the rejection of a login if the real server cannot be reached. If the
// server has too many clients, or is starting or shutting down, its own error is used.
func unreachable(err error) *rejection {
	if pgErr := new(pgconn.PgError); errors.As(err, &pgErr) &&
		(strings.HasPrefix(pgErr.Code, "53") || strings.HasPrefix(pgErr.Code, "57")) {
		return &rejection{
			code: pgErr.Code, message: pgErr.Message, hint: pgErr.Hint,
			reason: "PostgreSQL does not accept connections",
		}
	}
	return &rejection{code: "08006", message: "the server behind this one cannot be reached", reason: err.Error()}
}
