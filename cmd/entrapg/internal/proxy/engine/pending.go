package engine

import (
	"math/rand/v2"
	"sync"
)

// minPending is the least number of pending clients if the process can open enough files.
const minPending = 1024

// maxPending returns the number of clients that can be pending: the number of slots
// for sessions, so that all clients can log in at the same time, but at least
// minPending. It is smaller if the process can open only few files, because sessions
// need them too.
func maxPending(slots, files int) int { return max(1, min(max(minPending, slots), files/8)) }

// notPending is the index of a client that is not pending.
const notPending = -1

// pendingClients are the clients of a Server that have not authenticated. They do not
// use slots of sessions. If there are size of them, each new one drops another, so that
// clients that never authenticate cannot block others.
//
// The older of two random clients is dropped. A client that authenticates quickly is
// rarely the older one. Always dropping the oldest would block every client that
// needs more time to authenticate than an attacker needs to connect size times.
type pendingClients struct {
	size int // set before use

	mu      sync.Mutex
	clients []*conn   // each at its index
	dropped int       // number of dropped clients that have not left
	left    sync.Cond // signaled when a dropped client leaves
}

func newPendingClients(size int) *pendingClients {
	l := &pendingClients{size: size}
	l.left.L = &l.mu
	return l
}

// add adds a new client, and drops another if there are too many. It waits while size
// dropped clients have not left.
func (l *pendingClients) add(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.dropped >= l.size {
		l.left.Wait()
	}
	if n := len(l.clients); n >= l.size {
		older, other := l.clients[rand.IntN(n)], l.clients[rand.IntN(n)]
		if other.begun.Before(older.begun) {
			older = other
		}
		l.drop(older)
	}
	c.index = len(l.clients)
	l.clients = append(l.clients, c)
}

// remove removes a client. It can no longer be dropped.
func (l *pendingClients) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.index == notPending:
		return
	case c.dropped.Load():
		l.dropped--
		l.left.Signal()
	default:
		l.unlist(c)
	}
	c.index = notPending
}

// clear drops all clients.
func (l *pendingClients) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.clients) > 0 {
		l.drop(l.clients[0])
	}
}

// count returns the number of clients.
func (l *pendingClients) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.clients)
}

func (l *pendingClients) drop(c *conn) {
	l.unlist(c)
	l.dropped++
	c.drop()
}

func (l *pendingClients) unlist(c *conn) {
	last := len(l.clients) - 1
	l.clients[c.index] = l.clients[last]
	l.clients[c.index].index = c.index
	l.clients[last] = nil
	l.clients = l.clients[:last]
}
