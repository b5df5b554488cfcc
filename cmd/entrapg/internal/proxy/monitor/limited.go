package monitor

import (
	"net"
	"slices"
	"sync"
)

// A limited listener limits the number of open connections. Beyond the limit, it closes
// the oldest one for each new one. Otherwise clients that hold idle connections could make
// probes fail, and Kubernetes would restart the pod.
type limited struct {
	net.Listener
	most int

	mu   sync.Mutex
	open []*counted // the oldest first
}

func (l *limited) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &counted{Conn: conn, of: l}
	l.mu.Lock()
	l.open = append(l.open, c)
	var oldest *counted
	if len(l.open) > l.most {
		oldest = l.open[0]
		l.open = l.open[1:]
	}
	l.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
	return c, nil
}

// A counted connection is counted until it is closed.
type counted struct {
	net.Conn
	of *limited
}

func (c *counted) Close() error {
	c.of.mu.Lock()
	c.of.open = slices.DeleteFunc(c.of.open, func(other *counted) bool { return other == c })
	c.of.mu.Unlock()
	return c.Conn.Close()
}
