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

// Causes of failed queries. An error of the server is "login" or "query", followed
// by the SQLSTATE.
const (
	noToken  = "token"
	network  = "network"
	deadline = "deadline"
)

// causeOf returns the cause of an error. For an unknown one it returns the error's
// text, which no fault allows.
func causeOf(err error) string {
	var (
		token    *entrapg.TokenError
		username *entrapg.UsernameError
		login    *entrapg.LoginError
		connect  *pgconn.ConnectError
		server   *pgconn.PgError
		broken   net.Error
	)
	switch {
	case errors.As(err, &token), errors.As(err, &username):
		return noToken
	case errors.As(err, &server) && (errors.As(err, &login) || errors.As(err, &connect)):
		return "login " + server.Code
	case errors.As(err, &server):
		return "query " + server.Code
	case errors.Is(err, context.DeadlineExceeded):
		return deadline
	case errors.As(err, &connect), errors.As(err, &broken), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed), errors.Is(err, driver.ErrBadConn), pgconn.SafeToRetry(err):
		return network
	default:
		return "other: " + err.Error()
	}
}
