package entrapgtest

import "time"

// Faults are failures to inject. The zero value injects none.
type Faults struct {
	TokenLife  time.Duration // of tokens issued from now on, instead of Config.TokenLife
	Entra      EntraFault    // how the tenant answers requests for tokens
	EntraDelay time.Duration // before the tenant answers a request for a token
	EntraDown  bool          // the tenant rejects every request, over HTTP with 503
	Identity   IdentityFault // how the endpoints of managed identities answer
	LoginDelay time.Duration // before the server answers a password
	CutLogin   Stage         // when the server breaks the connection off
	NoTLS      bool          // the server answers that it has no TLS
	Refuse     *Refusal      // the answer to every mapped role, with any token
}

// A Refusal is an error that the server answers a password with.
type Refusal struct {
	Code    string // SQLSTATE, such as "28000"
	Message string
	Hint    string // empty where there is none
}

// EntraFault is a way in which the tenant fails. [Principal.GetToken] fails the
// same way as requests over HTTP.
type EntraFault int

// The ways in which the tenant can fail.
const (
	EntraAnswers   EntraFault = iota
	EntraThrottles            // 429, with Retry-After: 1
	EntraFails                // 500
	EntraGarbles              // 200, with JSON that breaks off
	EntraResets               // every connection is reset, also one that asks for no token
	EntraWantsMFA             // AADSTS50076 for people; programs get their tokens
)

// IdentityFault is a way in which the endpoints of managed identities fail: those of
// a [Host], but not [Principal.GetToken].
type IdentityFault int

// The ways in which the endpoints of managed identities can fail.
const (
	IdentityAnswers   IdentityFault = iota
	IdentityMissing                 // 400: no identity is assigned, or not yet
	IdentityStarts                  // 404: the endpoint is not there yet
	IdentityUpdates                 // 410: the endpoint is being updated, for up to 70 seconds on Azure
	IdentityThrottles               // 429, with Retry-After: 1
	IdentityFails                   // 500
)

// failure returns the answer, or nil if there is none to inject.
func (f IdentityFault) failure(at place) error {
	switch f {
	case IdentityMissing:
		if !at.machine {
			return noIdentityAssigned
		}
		return identityNotFound
	case IdentityStarts:
		return identityStarts
	case IdentityUpdates:
		return identityUpdates
	case IdentityThrottles:
		return identityThrottles
	case IdentityFails:
		return identityFails
	default:
		return nil
	}
}

// outage is what becomes of any request.
func (f Faults) outage() error {
	switch {
	case f.EntraDown:
		return entraDown
	case f.Entra == EntraResets:
		return errReset
	default:
		return nil
	}
}

// failure is what becomes of a request for a token, whoever asks.
func (f Faults) failure() error {
	switch f.Entra {
	case EntraThrottles:
		return throttled
	case EntraFails:
		return failed
	case EntraGarbles:
		return errGarbled
	default:
		return f.outage()
	}
}

// Stage is a moment of a login.
type Stage int

// The stages at which a login can be cut.
const (
	Never         Stage = iota
	AtConnect           // as soon as the network connection stands
	AfterTLS            // before the client's startup message is read
	AfterStartup        // instead of asking for the password
	AfterPassword       // instead of an answer to the password
)

// SetFaults replaces the faults in force.
func (s *Server) SetFaults(f Faults) {
	s.Tenant.setFaults(f)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

func (s *Server) fault() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// RevokeTokens makes the server refuse every token that has been issued so
// far. Sessions go on.
func (s *Server) RevokeTokens() error { return s.Tenant.rotate() }
