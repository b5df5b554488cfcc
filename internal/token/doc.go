// Package token caches the current access token of one credential for one
// scope. It refreshes the token ahead of its expiry, keeps one call to the
// credential in flight, paces calls that fail, and remembers for which keys a
// token was rejected. It is independent of PostgreSQL.
package token
