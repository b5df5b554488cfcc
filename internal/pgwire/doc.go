// Package pgwire handles the authentication exchange between pgx and a server: it
// sends the token, redacts it and limits what the server sends. See https://www.postgresql.org/docs/current/protocol.html.
package pgwire
