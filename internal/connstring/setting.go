// Package connstring reads connection strings, PG* environment variables and
// service files as pgx does, and reports which settings they contain and where
// each one comes from. A configuration that pgx has parsed no longer shows
// whether a value was set or is a default of pgx.
//
// It follows pgconn/config.go, parse_url.go and defaults*.go of pgx 5.12, and
// FuzzParse checks that the two agree. It does not validate, because pgx does.
package connstring

// A Setting is a value and where it was set.
type Setting struct {
	Value  string
	Origin string // OriginDSN, an environment variable such as "PGSSLMODE", or "service NAME in FILE"
}

// OriginDSN is the Origin of a setting in the connection string itself.
const OriginDSN = "DSN"
