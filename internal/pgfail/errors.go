package pgfail

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// ServerErrors returns the error responses of all hosts, in the order of the
// attempts. pgx joins the errors of the attempts, and errors.As would find only
// the first response.
func ServerErrors(err error) []*pgconn.PgError {
	switch e := err.(type) { //nolint:errorlint // walks the tree as errors.As does
	case *pgconn.PgError:
		return []*pgconn.PgError{e}
	case interface{ Unwrap() error }:
		return ServerErrors(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*pgconn.PgError
		for _, e := range e.Unwrap() {
			all = append(all, ServerErrors(e)...)
		}
		return all
	default:
		return nil
	}
}

// IsRejection reports whether a server rejects the login itself, and with it the
// token, the password or the user: SQLSTATE class 28, invalid authorization
// specification.
func IsRejection(e *pgconn.PgError) bool { return strings.HasPrefix(e.Code, "28") }

// IsBearerRejection reports whether a server rejects a token by OAUTHBEARER's own
// error (RFC 7628), which has no *pgconn.PgError. A server can also reject one by
// an ordinary error response: see ServerErrors and IsRejection.
func IsBearerRejection(err error) bool {
	return slices.ContainsFunc(Attempts(err), func(attempt error) bool { return diagnoseBearer(attempt).Kind != Unknown })
}

// WrongMethod reports whether a server requests an authentication method that does
// not accept a token, or no authentication.
func WrongMethod(err error) bool {
	return slices.ContainsFunc(Attempts(err), func(attempt error) bool { return diagnoseMethod(attempt).Kind != Unknown })
}

// Attempts splits an error at its joins: pgx joins one error per attempt.
func Attempts(err error) []error {
	for e := err; e != nil; e = errors.Unwrap(e) {
		if joined, ok := e.(interface{ Unwrap() []error }); ok {
			var all []error
			for _, e := range joined.Unwrap() {
				all = append(all, Attempts(e)...)
			}
			return all
		}
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// isTransport reports whether the connection failed, and not the login.
func isTransport(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
