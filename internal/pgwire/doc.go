// Package pgwire reads and writes PostgreSQL's frontend/backend protocol below
// the level of pgx. See https://www.postgresql.org/docs/current/protocol.html.
package pgwire
