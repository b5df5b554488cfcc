// Package pgwire handles the parts of PostgreSQL's protocol that are not queries,
// for programs on either side of it. A client's authentication exchange:
// [Exchange] sends the token, redacts it and limits what the server sends. A
// server's beginning: [Terms] negotiates encryption and the protocol, and
// [Verifier] checks a password. What a proxy does between the two: [Takeover]
// takes a session over from pgx, [Relay] passes bytes on, and [Canceler] forwards
// requests to cancel. See https://www.postgresql.org/docs/current/protocol.html.
package pgwire
