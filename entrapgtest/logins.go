package entrapgtest

import (
	"slices"
	"sync"
	"time"
)

// A Login is the server's record of one attempt to log in.
type Login struct {
	Time        time.Time // when the startup message arrived
	User        string    // the requested role
	Database    string    // the requested one; the name of the role by default
	Application string    // application_name
	TLS         bool      // the connection is encrypted
	Accepted    bool      // the client has a session with its token
	Code        string    // SQLSTATE of the rejection, if any
	Message     string    // of the rejection, as sent to the client
	Reason      string    // explains in more detail why the login is not accepted; never contains a token
}

// keptLogins is how many of the newest attempts are kept at least.
const keptLogins = 10_000

// A loginLog records attempts to log in.
type loginLog struct {
	onLogin func(Login) // can be nil

	mu     sync.Mutex
	logins []Login
}

func (l *loginLog) add(login Login) {
	l.mu.Lock()
	if len(l.logins) >= 2*keptLogins {
		l.logins = slices.Delete(l.logins, 0, keptLogins)
	}
	l.logins = append(l.logins, login)
	l.mu.Unlock()
	if l.onLogin != nil {
		l.onLogin(login)
	}
}

func (l *loginLog) all() []Login {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.logins)
}
