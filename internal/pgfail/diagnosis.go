// Package pgfail explains why a login with a Microsoft Entra token fails: what
// the messages of Azure's PostgreSQL servers, of PgBouncer and of pgx mean, and
// what to do.
package pgfail

import (
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// A Diagnosis is the cause of a failed login. The zero value means that the cause is
// unknown.
type Diagnosis struct {
	Kind Kind
	Hint string // explains the cause and the fix; does not quote the server
}

// Classify returns the diagnosis of an error that pgx, pgxpool or database/sql
// returned for a login, or for a statement that fails because of how the program
// connects. If several hosts failed, the most specific answer counts: a message
// that names the problem, then an authentication method without a token, then a
// SQLSTATE alone.
func Classify(err error, login Login) Diagnosis {
	if err == nil {
		return Diagnosis{}
	}
	d := classify(err)
	if d.Kind == Unknown && login.TokenCut && len(ServerErrors(err)) == 0 &&
		slices.ContainsFunc(Attempts(err), isTransport) {
		d = pgBouncerBroke
	}
	if !login.Password {
		return login.refine(d)
	}
	switch {
	case !d.Kind.aboutTokens():
		return d
	case WrongMethod(err) || IsBearerRejection(err) || slices.ContainsFunc(ServerErrors(err), IsRejection):
		return wrongPassword
	default:
		return Diagnosis{}
	}
}

func classify(err error) Diagnosis {
	responses := ServerErrors(err)
	for _, response := range responses {
		if d := lookUp(messages, response); d.Kind != Unknown {
			return d
		}
	}
	all := Attempts(err)
	for _, diagnose := range []func(error) Diagnosis{diagnoseBearer, diagnoseMethod} {
		for _, attempt := range all {
			if d := diagnose(attempt); d.Kind != Unknown {
				return d
			}
		}
	}
	for _, response := range responses {
		if d := lookUp(codes, response); d.Kind != Unknown {
			return d
		}
	}
	if slices.ContainsFunc(all, func(attempt error) bool { return Session(attempt) != "" }) {
		return noSuitableHost
	}
	return Diagnosis{}
}

// sessions are the states of hosts that pgx rejects because of
// target_session_attrs.
var sessions = []struct {
	err   error
	state string
}{
	{pgconn.ErrReadOnlyConnection, "read-only"},
	{pgconn.ErrReadWriteConnection, "read-write"},
	{pgconn.ErrPrimaryConnection, "a primary"},
	{pgconn.ErrStandbyConnection, "a standby"},
}

// Session returns the state of the host of one attempt, if target_session_attrs
// excludes it: "a primary", "a standby", "read-write" or "read-only". Otherwise it
// returns "".
func Session(attempt error) string {
	for _, session := range sessions {
		if errors.Is(attempt, session.err) {
			return session.state
		}
	}
	return ""
}

// diagnoseBearer diagnoses an attempt in which the server rejects the token by
// OAUTHBEARER's own error, for which pgx has no type.
func diagnoseBearer(attempt error) Diagnosis {
	if strings.Contains(attempt.Error(), "OAuth authentication failed: ") {
		return notAToken
	}
	return Diagnosis{}
}

// diagnoseMethod diagnoses an attempt in which the server requests something other
// than a token. Azure requests a cleartext password for a role that is mapped to
// Entra, and SCRAM for every other role. If require_auth excludes SCRAM, pgx does
// not answer; otherwise SCRAM fails.
func diagnoseMethod(attempt error) Diagnosis {
	if len(ServerErrors(attempt)) > 0 || isTransport(attempt) {
		return Diagnosis{} // authentication was not the problem
	}
	switch text := attempt.Error(); {
	case strings.Contains(text, "OAuth"): // the server did request a token
		return Diagnosis{}
	case strings.Contains(text, "failed SASL auth"), strings.Contains(text, "failed: server requested"):
		return notMapped
	case strings.Contains(text, "failed: server did not complete authentication"):
		return noAuthentication
	default:
		return Diagnosis{}
	}
}
