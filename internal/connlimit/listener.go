package connlimit

import "net"

// A listener accepts connections that a Limit counts.
type listener struct {
	net.Listener
	limit *Limit
}

func (l *listener) Accept() (net.Conn, error) {
	network, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{network, l.limit}
	if surplus := l.limit.add(c); surplus != nil {
		surplus.Conn.Close()
	}
	return c, nil
}

// A conn is counted until it is closed.
type conn struct {
	net.Conn
	limit *Limit
}

// NetConn returns the connection that is counted.
func (c *conn) NetConn() net.Conn { return c.Conn }

func (c *conn) Close() error {
	c.limit.remove(c)
	return c.Conn.Close()
}
