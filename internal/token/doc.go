// Package token caches the current access token of one credential for one
// scope. It refreshes the token ahead of its expiry, keeps one call to the
// credential in flight, backs off after calls that fail, and records for which
// keys a token was rejected. It is independent of PostgreSQL.
package token
