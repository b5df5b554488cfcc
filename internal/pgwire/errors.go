package pgwire

import (
	"bytes"
	"encoding/binary"

	"github.com/jackc/pgx/v5/pgproto3"
)

// An Error is a fatal error that a server sends to its client.
type Error struct {
	Code    string // SQLSTATE
	Message string
	Detail  string // may be empty
	Hint    string // may be empty
}

func (e *Error) Error() string { return e.Message + " (SQLSTATE " + e.Code + ")" }

// Encode returns the message as it is sent.
func (e *Error) Encode() []byte {
	clean := func(s string) string { return string(bytes.ReplaceAll([]byte(s), []byte{0}, []byte("?"))) }
	b, err := (&pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: clean(e.Code),
		Message: clean(e.Message), Detail: clean(e.Detail), Hint: clean(e.Hint),
	}).Encode(nil)
	if err != nil {
		return nil // longer than a gigabyte
	}
	return b
}

// encodeOld returns the message as clients of protocol 2 and older expect it.
func (e *Error) encodeOld() []byte { return []byte("EFATAL:  " + e.Message + "\n\x00") }

func protocolViolation(message string) *Error { return &Error{Code: "08P01", Message: message} }

// WithHint adds a hint to an encoded ErrorResponse, unless it has one already. It does
// not change the other fields.
func WithHint(response []byte, hint string) []byte {
	if hint == "" || len(response) < 6 || field(response[5:], 'H') != "" || response[len(response)-1] != 0 {
		return response
	}
	b := append(bytes.Clone(response[:len(response)-1]), 'H')
	b = append(append(b, hint...), 0, 0)
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	return b
}

// field returns a field of the body of an ErrorResponse, or "" if it has none.
func field(body []byte, kind byte) string {
	for len(body) > 1 {
		value, rest, _ := bytes.Cut(body[1:], []byte{0})
		if body[0] == kind {
			return string(value)
		}
		body = rest
	}
	return ""
}
