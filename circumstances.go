package entrapg

import (
	"runtime"
	"sync"
	"weak"

	"github.com/jackc/pgx/v5/pgconn"
)

// circumstances are what pgx's error does not tell about a login.
type circumstances struct {
	guest    bool        // the token is a guest's
	password bool        // there is no token
	lookup   *TokenError // why the user is the application's and not the identity's; nil otherwise
}

// remembered has the circumstances of pgxpool's logins by the configuration that
// is in pgx's errors, which is all that leads from such an error to its login.
var remembered sync.Map // of weak.Pointer[pgconn.Config] to circumstances

// remember keeps the circumstances of a login for as long as its configuration.
func (c circumstances) remember(config *pgconn.Config) {
	key := weak.Make(config)
	if _, known := remembered.Swap(key, c); !known {
		runtime.AddCleanup(config, func(key weak.Pointer[pgconn.Config]) { remembered.Delete(key) }, key)
	}
}

// circumstancesOf returns what is known about the login of an error's
// configuration.
func circumstancesOf(config *pgconn.Config) circumstances {
	c, _ := remembered.Load(weak.Make(config))
	known, _ := c.(circumstances)
	return known
}
