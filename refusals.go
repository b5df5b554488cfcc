package entrapg

import (
	"math"
	"time"
)

// A role is one of a server's, who may be let in or not.
type role struct{ server, name string }

// refusals are tokens in a row that were refused for a role.
type refusals struct {
	count  int
	last   *token
	resume time.Time // until then, a refused token is kept
}

// refuse takes down that t was refused for a role, and drops it, so that the next
// caller has a new one. After a few tokens in a row that were refused, the fault
// lies elsewhere: then the token stays for a while that grows, instead of a
// request for every connection.
func (s *tokenSource) refuse(who role, t *token) {
	const free = 3
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.refusals[who]
	if r == nil {
		r = &refusals{}
		if s.refusals == nil {
			s.refusals = map[role]*refusals{}
		}
		s.refusals[who] = r
		s.troubled.Store(true)
	}
	now := s.now()
	if r.last != t { // else another connection with the same token was here first
		r.last = t
		if r.count++; r.count > free {
			r.resume = wall(now).Add(backoff(r.count - free - 1))
		}
	}
	// A clock that was set back must not make the pause longer than it was.
	pausing := now.Before(r.resume) && r.resume.Sub(now) <= backoff(math.MaxInt)
	if current := s.current.Load(); current != nil && current.value == t.value && !pausing {
		s.current.Store(nil)
	}
}

// accept takes down that t was accepted for a role. If another role's or another
// host's refusal had it dropped, it is put back.
func (s *tokenSource) accept(who role, t *token) {
	if !s.troubled.Load() && s.current.Load() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refusals, who)
	s.troubled.Store(len(s.refusals) > 0)
	if s.current.Load() == nil && !s.closed {
		s.current.Store(t)
	}
}
