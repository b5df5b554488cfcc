// Package pgwire implements the parts of PostgreSQL's protocol other than queries, for
// clients, servers and proxies.
//
// For a client, [Exchange] sends the token during authentication, redacts it, and limits
// what the server may send. For a server, [Terms] negotiates encryption and the protocol
// version, and [Verifier] checks a password. For a proxy between the two, [Takeover] takes
// a session over from pgx, [Relay] forwards bytes in both directions, and [Canceler]
// forwards cancel requests. See https://www.postgresql.org/docs/current/protocol.html.
package pgwire
