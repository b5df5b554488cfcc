package entrapgtest

import "time"

// Faults are what goes wrong from now on. The zero value is fair weather.
type Faults struct {
	TokenLife  time.Duration // of tokens issued from now on, instead of Config.TokenLife
	EntraDelay time.Duration // before the tenant answers
	EntraDown  bool          // the tenant refuses every request
	LoginDelay time.Duration // before the server answers a password
	CutLogin   Stage         // where the server breaks the connection off
	NoTLS      bool          // the server answers that it has no TLS
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
