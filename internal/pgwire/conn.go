package pgwire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
)

// bufferSize is how much is read at once: a few of PostgreSQL's messages of 8 kB,
// or of TLS's records of at most 16 kB.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// A Conn is a network connection that reads much at once and holds no memory
// while it waits. TLS can be used over it. It is not safe for concurrent reads.
type Conn struct {
	net.Conn
	waiter waiter

	buffer  *[bufferSize]byte // from the pool, or nil
	unread  []byte            // of buffer
	inHaste bool              // Read does not wait
}

// NewConn returns a Conn over a network connection.
func NewConn(network net.Conn) *Conn {
	c := &Conn{Conn: network}
	c.waiter.init(network)
	return c
}

// Fill waits until something can be read.
func (c *Conn) Fill() error {
	if len(c.unread) > 0 {
		return nil
	}
	buffer, n, err := c.waiter.read(c.Conn)
	c.buffer = buffer
	if n > 0 {
		c.unread = buffer[:n]
		return nil
	}
	c.discard()
	if err == nil {
		err = io.EOF
	}
	return err
}

// Read reads what is buffered, or waits.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if len(c.unread) == 0 {
		if c.inHaste {
			return 0, errWouldBlock
		}
		if err := c.Fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, c.unread)
	if c.unread = c.unread[n:]; len(c.unread) == 0 {
		c.discard()
	}
	return n, nil
}

// discard gives the buffer back.
func (c *Conn) discard() {
	c.unread = nil
	if c.buffer != nil {
		buffers.Put(c.buffer)
		c.buffer = nil
	}
}

// replace closes the network connection and uses another one.
func (c *Conn) replace(network net.Conn) {
	c.Close()
	c.Conn, c.waiter = network, waiter{}
}

// CloseWrite ends what is sent.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// buffered returns what has been read from the network and not from the Conn.
func (c *Conn) buffered() []byte { return c.unread }

// drain reads from secured, which is TLS over the Conn, as much as there is
// without waiting.
func (c *Conn) drain(secured *tls.Conn, b []byte) (n int, err error) {
	c.inHaste = true
	for err == nil && n < len(b) {
		var more int
		more, err = secured.Read(b[n:])
		n += more
	}
	c.inHaste = false
	if errors.Is(err, errWouldBlock) {
		err = nil
	}
	return n, err
}

// errWouldBlock is a net.Error that TLS does not keep, as one of a deadline.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing can be read without waiting" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }
