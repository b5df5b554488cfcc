package entrapgtest

import (
	"sync/atomic"
	"time"
)

// Faults are failures to inject. The zero value injects none.
type Faults struct {
	TokenLife  time.Duration // if not 0, the lifetime of tokens issued from now on, instead of Config.TokenLife
	Entra      EntraFault    // how the tenant answers token requests
	EntraDelay time.Duration // delay before the tenant answers a token request
	EntraDown  bool          // the tenant rejects every request, over HTTP with 503
	Identity   IdentityFault // how managed identity endpoints answer
	LoginDelay time.Duration // delay before the server answers a token
	CutLogin   Stage         // the stage of a login at which the server closes the connection
	NoTLS      bool          // the server answers that it does not support TLS
	Reject     *Rejection    // if set, every login as a mapped role is rejected with it
}

// A Rejection is the error response with which the server rejects a login.
type Rejection struct {
	Code    string // SQLSTATE, such as "28000"
	Message string
	Hint    string // optional
}

// EntraFault is a failure of the tenant. It affects [Principal.GetToken] and requests over
// HTTP.
type EntraFault int

// The failures of the tenant, with the HTTP status or the error.
const (
	EntraOK          EntraFault = iota
	EntraThrottled              // 429, with Retry-After: 1 second
	EntraServerError            // 500
	EntraTruncated              // 200, with truncated JSON
	EntraReset                  // every connection is reset, for any request
	EntraRequiresMFA            // AADSTS50076 for users; applications still get tokens
)

// IdentityFault is a failure of the managed identity endpoints of a [Host]. It does not
// affect [Principal.GetToken].
type IdentityFault int

// The failures of managed identity endpoints, with the HTTP status.
const (
	IdentityOK          IdentityFault = iota
	IdentityMissing                   // 400: no identity is assigned, or not yet
	IdentityStarting                  // 404: the endpoint is starting
	IdentityUpdating                  // 410: the endpoint is being updated, for up to 70 seconds on Azure
	IdentityThrottled                 // 429, with Retry-After: 1 second
	IdentityServerError               // 500
)

// failure returns the failure to inject, or nil if there is none.
func (f IdentityFault) failure(api identityAPI) error {
	switch f {
	case IdentityMissing:
		if !api.machine {
			return noIdentityAssigned
		}
		return identityNotFound
	case IdentityStarting:
		return identityStarting
	case IdentityUpdating:
		return identityUpdating
	case IdentityThrottled:
		return identityThrottled
	case IdentityServerError:
		return identityServerError
	default:
		return nil
	}
}

// outage returns the failure of every request, or nil.
func (f Faults) outage() error {
	switch {
	case f.EntraDown:
		return entraDown
	case f.Entra == EntraReset:
		return errReset
	default:
		return nil
	}
}

// failure returns the failure of every token request, or nil.
func (f Faults) failure() error {
	switch f.Entra {
	case EntraThrottled:
		return throttled
	case EntraServerError:
		return serverError
	case EntraTruncated:
		return errTruncated
	default:
		return f.outage()
	}
}

// Stage is a stage of a login.
type Stage int

// The stages of a login at which the server can close the connection.
const (
	CutNever      Stage = iota
	AtConnect           // when the network connection is established
	AfterTLS            // before the client's startup message is read
	AfterStartup        // instead of a request for the token
	AfterPassword       // instead of an answer to the token
)

// currentFaults are the faults to inject now.
type currentFaults struct{ faults atomic.Pointer[Faults] }

func (c *currentFaults) set(f Faults) { c.faults.Store(&f) }

func (c *currentFaults) get() Faults {
	if f := c.faults.Load(); f != nil {
		return *f
	}
	return Faults{}
}
