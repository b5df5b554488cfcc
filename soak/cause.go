package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg"
)

// What keeps a query from succeeding. What a server says is "login" or "query"
// with a SQLSTATE behind it.
const (
	noToken  = "token"
	network  = "network"
	deadline = "deadline"
)

// causeOf tells what failed. Anything that is none of the causes above is told in
// its own words, which no fault allows.
func causeOf(err error) string {
	var (
		token    *entrapg.TokenError
		username *entrapg.UsernameError
		login    *entrapg.LoginError
		connect  *pgconn.ConnectError
		said     *pgconn.PgError
		broken   net.Error
	)
	switch {
	case errors.As(err, &token), errors.As(err, &username):
		return noToken
	case errors.As(err, &said) && (errors.As(err, &login) || errors.As(err, &connect)):
		return "login " + said.Code
	case errors.As(err, &said):
		return "query " + said.Code
	case errors.Is(err, context.DeadlineExceeded):
		return deadline
	case errors.As(err, &connect), errors.As(err, &broken), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed), errors.Is(err, driver.ErrBadConn), pgconn.SafeToRetry(err):
		return network
	default:
		return "other: " + err.Error()
	}
}
