package pgfail

import (
	"slices"
	"strings"
)

// A Login contains details of a login that its error does not contain. The zero value is
// a login with a token about which nothing else is known.
type Login struct {
	User     string
	Hosts    []string
	Scope    string // of tokens for the cloud that the hosts belong to; empty outside Azure
	Guest    bool   // the token belongs to a guest in the tenant
	Unnamed  bool   // User is the application's name or ID, because the lookup of the identity's name failed
	Password bool   // it uses a password instead of a token
	TokenCut bool   // a connection broke after the login sent a token that may be too long for PgBouncer
}

// refine returns d, or a more specific diagnosis for this login.
func (l Login) refine(d Diagnosis) Diagnosis {
	switch {
	case d.Kind == WrongAudience && l.Scope != "":
		d.Hint = "the token is for another service or cloud; omit entra_scope, or set it to " + l.Scope +
			", the scope of the server's cloud"
		return d
	case d.Kind != NoRole && d.Kind != NotMapped:
		return d
	case l.hasServerSuffix():
		return serverSuffix
	case l.Guest && !strings.Contains(strings.ToUpper(l.User), "#EXT#"):
		return guestName
	case l.Unnamed:
		return unnamed
	default:
		return d
	}
}

// hasServerSuffix reports whether the user has the form user@server of Azure
// Database for PostgreSQL Single Server. User principal names end in a domain,
// which has a dot.
func (l Login) hasServerSuffix() bool {
	i := strings.LastIndexByte(l.User, '@')
	if i < 0 {
		return false
	}
	suffix := l.User[i+1:]
	return !strings.Contains(suffix, ".") ||
		slices.ContainsFunc(l.Hosts, func(host string) bool { return strings.EqualFold(host, suffix) })
}
