package engine

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// TestCancel_BoundsRequestsAtOnce has more sessions cancel than the proxy forwards at
// once, to a slow server.
func TestCancel_BoundsRequestsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newSlowTarget()
		s := &Server{}
		s.setUp()
		for pid := range uint32(100) {
			go s.forward(target.key(s, pid))
		}
		synctest.Wait()
		if n := target.waiting.Load(); n != maxCancels {
			t.Errorf("%d requests are forwarded at once, want %d", n, maxCancels)
		}
		close(target.handle)
		synctest.Wait()
		if n := s.Stats().Cancels; n != 100 {
			t.Errorf("%d requests are forwarded in the end, want all 100", n)
		}
	})
}

// TestCancel_SessionDelaysNoOther sends many requests for one session.
func TestCancel_SessionDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newSlowTarget()
		s := &Server{}
		s.setUp()
		noisy, other := target.key(s, 1), target.key(s, 2)
		var ended atomic.Int64
		for range 200 {
			go func() {
				s.forward(noisy)
				ended.Add(1)
			}()
		}
		synctest.Wait()
		if n := ended.Load(); n != 198 {
			t.Errorf("%d requests have ended, want all except the one in flight and the one that waits", n)
		}
		go s.forward(other)
		synctest.Wait()
		if n := target.waiting.Load(); n != 2 {
			t.Errorf("%d requests are forwarded at once, want one of each session", n)
		}
		close(target.handle)
		synctest.Wait()
		if n := s.Stats().Cancels; n != 3 {
			t.Errorf("%d requests forwarded, want the first and the last of one session, and that of the other", n)
		}
	})
}

// A slowTarget is a server that handles cancel requests once handle is closed.
type slowTarget struct {
	handle  chan struct{}
	waiting atomic.Int64
}

func newSlowTarget() *slowTarget { return &slowTarget{handle: make(chan struct{})} }

// key returns the key of a new session with the server.
func (s *slowTarget) key(p *Server, pid uint32) *key {
	return p.keys.add(&pgwire.Session{
		Cancel:   pgwire.CancelRequest{PID: pid, Key: []byte{1, 2, 3, 4}},
		Canceler: pgwire.Canceler{Dial: s.dial},
	})
}

func (s *slowTarget) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		if _, err := far.Read(make([]byte, 100)); err != nil {
			return
		}
		s.waiting.Add(1)
		<-s.handle
		s.waiting.Add(-1)
	}()
	return near, nil
}
