// Package connlimit limits the open connections of an HTTP server.
package connlimit

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
)

// A Limit limits the number of open connections of a server. Beyond the limit, each
// new connection closes the oldest one whose request is not being answered. Otherwise,
// clients that hold connections open could keep others out. If all requests are being
// answered, the new connection is closed.
type Limit struct {
	Max int // open connections

	mu   sync.Mutex
	open []*conn // the oldest first
}

// contextKey is the key of a connection in the contexts of its requests.
type contextKey struct{}

// Apply configures a server that has not been started. The server must accept its
// connections from [Limit.Listener], and must support only HTTP/1.
func (l *Limit) Apply(s *http.Server) {
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, contextKey{}, unwrap(c))
	}
	handler := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.setAnswering(r.Context().Value(contextKey{}).(*conn), true)
		handler.ServeHTTP(w, r)
	})
	changed := s.ConnState
	s.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateIdle { // the answer is sent
			l.setAnswering(unwrap(c), false)
		}
		if changed != nil {
			changed(c, state)
		}
	}
}

func unwrap(c net.Conn) *conn {
	if encrypted, ok := c.(*tls.Conn); ok {
		c = encrypted.NetConn()
	}
	return c.(*conn)
}

func (l *Limit) setAnswering(c *conn, answering bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.answering = answering
}

// Listener returns a listener that counts connections. Several listeners can share a
// Limit.
func (l *Limit) Listener(inner net.Listener) net.Listener { return &listener{inner, l} }

// add counts a connection, and returns the one to close, if any.
func (l *Limit) add(c *conn) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, c)
	if len(l.open) <= l.Max {
		return nil
	}
	i := slices.IndexFunc(l.open, func(c *conn) bool { return !c.answering })
	closed := l.open[i]
	l.open = slices.Delete(l.open, i, i+1)
	return closed
}

func (l *Limit) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = slices.DeleteFunc(l.open, func(other *conn) bool { return other == c })
}

type listener struct {
	net.Listener
	limit *Limit
}

func (l *listener) Accept() (net.Conn, error) {
	network, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: network, limit: l.limit}
	if surplus := l.limit.add(c); surplus != nil {
		surplus.Conn.Close()
	}
	return c, nil
}

// A conn is counted until it is closed.
type conn struct {
	net.Conn
	limit     *Limit
	answering bool // guarded by limit.mu
}

// NetConn returns the connection that is counted.
func (c *conn) NetConn() net.Conn { return c.Conn }

func (c *conn) Close() error {
	c.limit.remove(c)
	return c.Conn.Close()
}
