package entrapgtest

import "time"

// Faults are what goes wrong from now on. The zero value is fair weather.
type Faults struct {
	TokenLife  time.Duration // of tokens issued from now on, instead of Config.TokenLife
	Entra      EntraFault    // what the tenant makes of requests for tokens
	EntraDelay time.Duration // before the tenant answers a request for a token
	EntraDown  bool          // the tenant refuses every request, over HTTP with 503
	LoginDelay time.Duration // before the server answers a password
	CutLogin   Stage         // where the server breaks the connection off
	NoTLS      bool          // the server answers that it has no TLS
	Refuse     *Refusal      // instead of judging the password of a mapped role; nil for fair weather
}

// A Refusal is what a server says to a login that it does not accept.
type Refusal struct{ Code, Message, Hint string }

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
