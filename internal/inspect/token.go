package inspect

import "time"

// A Token is a token and its user or, with entra_credential=none, the password and the
// user.
type Token struct {
	Value   string
	Expires time.Time // zero for a password
	User    string
	Claim   string // that the user comes from; empty if the user is set
	Lookup  error  // of the lookup of the identity's name; if not nil, the user is the application's name
}
