// Package token caches the current access token of one credential for one
// scope. It refreshes the token ahead of its expiry, keeps one call to the
// credential in flight, paces calls that fail, and remembers for whom a token
// was rejected. It does not know what the tokens are for.
package token
