package entrapg

import (
	"encoding/binary"
	"fmt"
	"io"
)

// loginLimit is how much a server may say before it has let the user in: a
// thousand times what any says. Pgx itself would read on for ever, and make room
// for a gigabyte where a message's length says so.
const loginLimit = 1 << 20

// A loginReader holds a server to loginLimit until it is ready for queries. It
// never reads past the head of a message, so that nobody who reads from it makes
// room for one that is too long.
type loginReader struct {
	io.Reader
	said int    // so far
	head []byte // of the next message, as much as has come
	body int    // what is left of the present one
	over bool   // the login, and with it the limit
}

func (r *loginReader) Read(b []byte) (int, error) {
	const headSize = 5 // type and length
	if r.over {
		return r.Reader.Read(b)
	}
	if r.body > 0 {
		n, err := r.Reader.Read(b[:min(len(b), r.body)])
		r.body -= n
		return n, err
	}
	n, err := r.Reader.Read(b[:min(len(b), headSize-len(r.head))])
	r.head = append(r.head, b[:n]...)
	if len(r.head) < headSize {
		return n, err
	}
	length := int(binary.BigEndian.Uint32(r.head[1:])) // without the type; pgx minds those under 4
	if r.said += 1 + length; r.said > loginLimit {
		return 0, fmt.Errorf("the server says more than %d bytes before it lets anybody in: this is no PostgreSQL", loginLimit)
	}
	r.body, r.over, r.head = max(0, length-4), r.head[0] == 'Z', nil // ReadyForQuery
	return n, err
}
