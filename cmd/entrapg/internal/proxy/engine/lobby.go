package engine

import (
	"math/rand/v2"
	"sync"
)

// maxLobby bounds the size of a lobby.
const maxLobby = 1024

// lobbySize returns how many clients a lobby has room for: fewer if the process can
// open few files, so that sessions have the others.
func lobbySize() int { return max(1, min(maxLobby, maxFiles()/8)) }

// outside is the place of a client that is not in the lobby.
const outside = -1

// A lobby holds the clients of a Server that have not authenticated. They take none
// of the slots of sessions. If it is full, it drops a client for each new one, so
// that clients that only stay there cannot keep others out.
//
// It drops the older of two that it picks at random. A client that authenticates
// soon is rarely the older one. Always dropping the oldest would keep out every
// client that takes longer than an attacker takes to fill the lobby.
type lobby struct {
	size int // set before use

	mu      sync.Mutex
	waiting []*conn   // each at the index that is its place
	dropped int       // clients that were dropped and have not left
	left    sync.Cond // a dropped client has left
}

// newLobby returns a lobby of a size.
func newLobby(size int) *lobby {
	l := &lobby{size: size}
	l.left.L = &l.mu
	return l
}

// enter adds a new client, for which it may drop another. It waits while as many
// dropped clients as there is room for have not left.
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

// leave removes a client, which cannot be dropped from then on.
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

// count returns how many clients there are.
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
