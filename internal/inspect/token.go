package inspect

import "time"

// A Token is a token, or the password with entra_credential=none, and the user
// that it logs in.
type Token struct {
	Value   string
	Expires time.Time // zero for a password
	User    string
	Claim   string // that names the user; empty if the user is set
	Lookup  error  // why the user is the application's, if looking up the identity's name failed
}
