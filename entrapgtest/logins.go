package entrapgtest

import (
	"slices"
	"sync"
	"time"
)

// A Login is the server's record of one attempt to log in.
type Login struct {
	Time        time.Time
	User        string // the requested role
	Database    string
	Application string // application_name
	TLS         bool
	Accepted    bool
	Code        string // SQLSTATE of the rejection
	Message     string // of the rejection, as sent to the client
	Reason      string // explains the result in more detail; never contains a token
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
