package entrapgtest

import (
	"io"
	"sync"
)

// connections are the open connections and relays of a front.
type connections struct {
	mu     sync.Mutex // guards the following
	closed bool
	open   map[io.Closer]struct{}
}

// add records a connection or a relay for closeAll. After closeAll, add closes it itself
// and returns false.
func (c *connections) add(conn io.Closer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.Close()
		return false
	}
	if c.open == nil {
		c.open = map[io.Closer]struct{}{}
	}
	c.open[conn] = struct{}{}
	return true
}

// close closes one of them.
func (c *connections) close(conn io.Closer) {
	conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

// closeAll closes all of them, and those that are added later.
func (c *connections) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.open {
		conn.Close()
	}
}
