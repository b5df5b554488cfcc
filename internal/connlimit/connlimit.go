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

// A Limit limits the number of open connections of a server, so that clients that hold
// connections cannot keep others out. Beyond the limit, each new connection closes
// another one. That is the connection that has waited longest for a request, unless
// more than half of the connections have requests that are being answered. Then it is
// the one of them whose request is the oldest.
//
// A request is being answered from when its body has been read until its handler
// returns. Then its connection is the last one to be closed of those that wait for
// requests, so a client has time to read the answer.
type Limit struct {
	Max int // open connections

	mu                 sync.Mutex
	waiting, answering []*conn // each in the order in which connections have entered it
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
		c := r.Context().Value(contextKey{}).(*conn)
		defer l.move(c, &l.answering, &l.waiting)
		received := func() { l.move(c, &l.waiting, &l.answering) }
		if r.Body == http.NoBody {
			received()
		} else {
			copied := *r
			copied.Body = &body{r.Body, received}
			r = &copied
		}
		handler.ServeHTTP(w, r)
	})
}

func unwrap(c net.Conn) *conn {
	if encrypted, ok := c.(*tls.Conn); ok {
		c = encrypted.NetConn()
	}
	return c.(*conn)
}

// Listener returns a listener that counts connections. Several listeners can share a
// Limit.
func (l *Limit) Listener(inner net.Listener) net.Listener { return &listener{inner, l} }

// move moves a connection to the end of another list, if it is in the first one.
func (l *Limit) move(c *conn, from, to *[]*conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(*from, c); i >= 0 {
		*from = slices.Delete(*from, i, i+1)
		*to = append(*to, c)
	}
}

// add counts a connection, and returns the one to close, if any.
func (l *Limit) add(c *conn) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, c)
	if len(l.waiting)+len(l.answering) <= l.Max {
		return nil
	}
	list := &l.waiting
	if len(l.answering) > l.Max/2 {
		list = &l.answering
	}
	surplus := (*list)[0]
	*list = slices.Delete(*list, 0, 1)
	return surplus
}

func (l *Limit) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, list := range []*[]*conn{&l.waiting, &l.answering} {
		*list = slices.DeleteFunc(*list, func(other *conn) bool { return other == c })
	}
}
