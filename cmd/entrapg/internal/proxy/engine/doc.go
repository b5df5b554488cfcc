// Package engine lets clients of PostgreSQL log in to an upstream server with
// Microsoft Entra tokens. A client connects without a token, or with the proxy's
// own password. The proxy logs in upstream as package entrapg does and then
// relays bytes.
package engine
