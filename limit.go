package entrapg

import (
	"encoding/binary"
	"fmt"
	"io"
)

// What a server may say before it has let the user in, a thousand times what any
// says. Pgx itself would read on for ever, make room for a gigabyte where a
// message's length says so, and answer as often as it is asked.
const (
	loginLimit    = 1 << 20 // bytes
	loginRequests = 8       // for authentication
)

const headSize = 5 // type and length

// A loginReader holds a server to these limits until it is ready for queries. It
// never reads past the head of a message, so that nobody who reads from it makes
// room for one that is too long.
type loginReader struct {
	io.Reader
	said     int // so far
	requests int
	head     [headSize]byte // of the next message
	n        int            // as much of head as has come
	body     int            // what is left of the present message
	over     bool           // the login, and with it the limits
}

func (r *loginReader) Read(b []byte) (int, error) {
	if r.over {
		return r.Reader.Read(b)
	}
	if r.body > 0 {
		n, err := r.Reader.Read(b[:min(len(b), r.body)])
		r.body -= n
		return n, err
	}
	n, err := r.Reader.Read(b[:min(len(b), headSize-r.n)])
	r.n += copy(r.head[r.n:], b[:n])
	if r.n < headSize {
		return n, err
	}
	length := int(binary.BigEndian.Uint32(r.head[1:])) // without the type; pgx minds those under 4
	if r.said += 1 + length; r.said > loginLimit {
		return 0, fmt.Errorf("the server says more than %d bytes before it lets anybody in: this is no PostgreSQL", loginLimit)
	}
	switch r.head[0] {
	case 'R':
		if r.requests++; r.requests > loginRequests {
			return 0, fmt.Errorf("the server asks for authentication more than %d times: this is no PostgreSQL", loginRequests)
		}
	case 'Z': // ReadyForQuery
		r.over = true
	}
	r.body, r.n = max(0, length-4), 0
	return n, err
}
