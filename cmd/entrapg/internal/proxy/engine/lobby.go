package engine

import (
	"math/rand/v2"
	"sync"
)

// minLobby is the least capacity of a lobby if the process can open enough files.
const minLobby = 1024

// lobbySize returns the capacity of a lobby: the number of slots for sessions, so
// that all clients can log in at the same time, but at least minLobby. It is smaller
// if the process can open only few files, because sessions need them too.
func lobbySize(slots, files int) int { return max(1, min(max(minLobby, slots), files/8)) }

// outside is the place of a client that is not in the lobby.
const outside = -1

// A lobby holds the clients of a Server that have not authenticated. They do not use
// slots of sessions. A full lobby drops a client for each new one, so that clients
// that never authenticate cannot block others.
//
// It drops the older of two random clients. A client that authenticates quickly is
// rarely the older one. Always dropping the oldest would block every client that
// needs more time to authenticate than an attacker needs to fill the lobby.
type lobby struct {
	size int // set before use

	mu      sync.Mutex
	waiting []*conn   // each at the index in its field place
	dropped int       // number of dropped clients that have not left
	left    sync.Cond // signaled when a dropped client leaves
}

func newLobby(size int) *lobby {
	l := &lobby{size: size}
	l.left.L = &l.mu
	return l
}

// enter adds a new client, and drops another if the lobby is full. It waits while
// size dropped clients have not left.
func (l *lobby) enter(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.dropped >= l.size {
		l.left.Wait()
	}
	if n := len(l.waiting); n >= l.size {
		older, other := l.waiting[rand.IntN(n)], l.waiting[rand.IntN(n)]
		if other.begun.Before(older.begun) {
			older = other
		}
		l.drop(older)
	}
	c.place = len(l.waiting)
	l.waiting = append(l.waiting, c)
}

// leave removes a client. It can no longer be dropped.
func (l *lobby) leave(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.place == outside:
		return
	case c.dropped.Load():
		l.dropped--
		l.left.Signal()
	default:
		l.remove(c)
	}
	c.place = outside
}

// clear drops all clients.
func (l *lobby) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waiting) > 0 {
		l.drop(l.waiting[0])
	}
}

// count returns the number of clients.
func (l *lobby) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

func (l *lobby) drop(c *conn) {
	l.remove(c)
	l.dropped++
	c.drop()
}

func (l *lobby) remove(c *conn) {
	last := len(l.waiting) - 1
	l.waiting[c.place] = l.waiting[last]
	l.waiting[c.place].place = c.place
	l.waiting[last] = nil
	l.waiting = l.waiting[:last]
}
