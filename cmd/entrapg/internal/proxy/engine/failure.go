package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/logwriter"
	"github.com/entrapg/entrapg/internal/credfail"
	"github.com/entrapg/entrapg/internal/inspect"
	"github.com/entrapg/entrapg/internal/pgfail"
	"github.com/entrapg/entrapg/internal/pgwire"
)

// SQLSTATEs of the proxy's own errors.
const (
	cannotConnect      = "08001"
	connectionFailure  = "08006"
	invalidLogin       = "28000"
	invalidPassword    = "28P01"
	tooManyConnections = "53300"
	adminShutdown      = "57P01"
	cannotConnectNow   = "57P03"
	configError        = "F0000"
)

// maxMessage is the length of the proxy's own messages in bytes.
const maxMessage = 1000

// runDoctorHint is the hint of messages that have no better one.
const runDoctorHint = "Run entrapg doctor with the proxy's DSN on the proxy's machine to see which step fails."

// A failure is the reason why a client got no session.
type failure struct {
	kind     Rejection
	response []byte // sent to the client
	err      error  // logged
}

// fatal returns a failure with one of the proxy's own errors.
func fatal(kind Rejection, e *pgwire.Error) *failure {
	return &failure{kind: kind, response: e.Encode(), err: e}
}

var (
	errShuttingDown = &pgwire.Error{
		Code: cannotConnectNow, Message: "the proxy is shutting down",
	}
	errEnded = &pgwire.Error{
		Code: adminShutdown, Message: "terminating connection because the proxy is shutting down",
	}
	errTooMany = &pgwire.Error{
		Code: tooManyConnections, Message: "too many connections to the proxy",
		Hint: "Close connections that are not used, or raise the proxy's --max-connections.",
	}
	errDropped = &pgwire.Error{
		Code: tooManyConnections, Message: "too many clients of the proxy have not authenticated",
		Hint: "Try again. If the error persists, find the client that opens connections and does not log in.",
	}
	errNoTLS = &pgwire.Error{
		Code: invalidLogin, Message: "the proxy accepts connections with TLS only",
		Hint: "Set sslmode=require or a stricter mode.",
	}
)

func wrongPassword(user string) *pgwire.Error {
	return &pgwire.Error{
		Code: invalidPassword, Message: fmt.Sprintf("password authentication failed for user %q", tidy(logwriter.Clip(user))),
		Hint: "Use the proxy's password. If none is set, the proxy prints a random one when it starts.",
	}
}

// explain returns the failure of a login upstream. A server's error is forwarded
// unchanged, except that a hint is added if it has none.
func explain(err error, l *clientLogin) *failure {
	var (
		loginErr    *entrapg.LoginError
		tokenErr    *entrapg.TokenError
		usernameErr *entrapg.UsernameError
		configErr   *entrapg.ConfigError
		serverErr   *pgconn.PgError
		dnsErr      *net.DNSError
		certErr     *tls.CertificateVerificationError
	)
	response := l.takeover.ErrorResponse()
	if response != nil && errors.As(err, &serverErr) {
		hint := entrapg.Explain(err)
		if serverErr.Code == "3D000" && l.startup.Get("database") == l.startup.Get("user") {
			hint = "Set the name of the database: without one, psql and libpq use the name of the user."
		}
		return &failure{kind: RejectedServer, response: pgwire.WithHint(response, sentence(hint)), err: err}
	}
	hint := entrapg.Explain(err)
	e := &pgwire.Error{Code: cannotConnect, Hint: sentence(hint)}
	kind := RejectedNetwork
	switch {
	case errors.As(err, &tokenErr):
		kind, e.Code = RejectedToken, invalidLogin
		e.Message = fmt.Sprintf("no token from %s for %s: %s", tokenErr.Credential, tokenErr.Scope,
			credfail.Summarize(tokenErr.Err.Error()))
	case errors.As(err, &usernameErr):
		e.Code, e.Message, kind = invalidLogin, err.Error(), RejectedToken
	case errors.As(err, &loginErr):
		e.Code, e.Message, kind = invalidLogin, fmt.Sprintf("login as %q failed: %s",
			loginErr.User, cause(loginErr.Err)), RejectedServer
	case errors.As(err, &configErr):
		e.Code, e.Message = configError, err.Error()
	case errors.Is(err, entrapg.ErrClosed):
		return fatal(RejectedShutdown, errShuttingDown)
	case inspect.KindOf(err) == pgfail.NoSuitableHost:
		e.Message = fmt.Sprintf("no host of %s satisfies target_session_attrs: %s",
			l.servers, strings.ReplaceAll(cause(err), "ValidateConnect failed: ", ""))
	case l.takeover.Begun():
		e.Code, e.Message = connectionFailure, fmt.Sprintf("the connection to %s broke during the login: %s",
			l.servers, cause(err))
	case errors.As(err, &dnsErr):
		e.Message = fmt.Sprintf("cannot resolve host %q: %v", dnsErr.Name, dnsErr)
	case errors.As(err, &certErr):
		e.Message = fmt.Sprintf("cannot verify the certificate of %s: %v", l.servers, certErr.Err)
	case errors.Is(err, context.DeadlineExceeded):
		e.Message = fmt.Sprintf("no answer from %s in time", l.servers)
	default:
		e.Message = fmt.Sprintf("cannot connect to %s: %s", l.servers, cause(err))
	}
	if hint != "" { // which the library's error contains
		e.Message = strings.TrimSuffix(e.Message, ": "+hint)
	}
	e.Message = tidy(strings.TrimPrefix(e.Message, "entrapg: "))
	if e.Hint == "" {
		e.Hint = runDoctorHint
	}
	return fatal(kind, e)
}

// cause returns pgx's error without its prefix, which contains the role. It also removes
// the address if there is only one.
func cause(err error) string {
	text := strings.TrimPrefix(err.Error(), "entrapg: ")
	if _, rest, ok := strings.Cut(text, "`: "); ok && strings.HasPrefix(text, "failed to connect to `") {
		text = rest
	}
	if _, rest, ok := strings.Cut(text, "): "); ok && !strings.Contains(strings.TrimSpace(text), "\n") {
		text = rest
	}
	return text
}

// tidy makes a text suitable for a message: a single line of limited length, without
// characters that do not print.
func tidy(s string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), unicode.IsSpace), " ")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) <= maxMessage {
		return s
	}
	cut := maxMessage
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// sentence formats a hint as PostgreSQL does: with a capital letter and a period.
func sentence(hint string) string {
	if hint == "" {
		return ""
	}
	hint = tidy(hint)
	first, size := utf8.DecodeRuneInString(hint)
	word, _, _ := strings.Cut(hint, " ")
	if strings.ToLower(word) == word && !strings.ContainsAny(word, "_=") {
		hint = string(unicode.ToUpper(first)) + hint[size:]
	}
	return strings.TrimSuffix(hint, ".") + "."
}
