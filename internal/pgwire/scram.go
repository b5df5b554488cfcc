package pgwire

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/text/unicode/norm"
)

// The parameters of SCRAM-SHA-256 are PostgreSQL's.
const (
	scramMechanism = "SCRAM-SHA-256"
	maxSASLMessage = 1024
)

// ScramIterations is the number of iterations that PostgreSQL uses by default. Some clients
// reject fewer.
const ScramIterations = 4096

// A Verifier checks a password by SCRAM-SHA-256 (RFC 5802 and 7677). It does not
// contain the password.
type Verifier struct {
	salt       []byte
	iterations int
	keys       []scramKeys // of each normalization of the password; the first one is of the password itself
}

// scramKeys are StoredKey and ServerKey.
type scramKeys struct{ stored, server []byte }

// NewVerifier returns a Verifier of a password. Clients differ in how they
// normalize passwords that are not ASCII: by SASLprep, by its successor or not
// at all. Each of these is accepted. Fewer iterations than ScramIterations are for
// passwords that are random and have at least 128 bits.
func NewVerifier(password string, iterations int) *Verifier {
	salt := make([]byte, 16)
	rand.Read(salt)
	return newVerifier(password, salt, iterations)
}

func newVerifier(password string, salt []byte, iterations int) *Verifier {
	v := &Verifier{salt: salt, iterations: iterations}
	for _, form := range normalizations(password) {
		salted, err := pbkdf2.Key(sha256.New, form, salt, iterations, sha256.Size)
		if err != nil {
			panic(err) // never with this length
		}
		stored := sha256.Sum256(sum(salted, "Client Key"))
		v.keys = append(v.keys, scramKeys{stored[:], sum(salted, "Server Key")})
	}
	return v
}

// Encode returns what PostgreSQL stores to check the password itself (RFC 5803), but none
// of its normalizations.
func (v *Verifier) Encode() string {
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d:%s$%s:%s", scramMechanism, v.iterations, encode(v.salt),
		encode(v.keys[0].stored), encode(v.keys[0].server))
}

// normalizations returns the forms of a password that clients may use.
func normalizations(password string) []string {
	forms := []string{password}
	if !utf8.ValidString(password) {
		return forms
	}
	mapped := mapSpaces(password)
	for _, form := range []string{norm.NFKC.String(mapped), norm.NFC.String(mapped)} {
		if form != "" && !slices.Contains(forms, form) { // a password of only soft hyphens must not become empty
			forms = append(forms, form)
		}
	}
	return forms
}

// mapSpaces replaces and removes characters as SASLprep does (RFC 4013, section
// 2.1).
func mapSpaces(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == 0xA0, r == 0x1680, 0x2000 <= r && r <= 0x200B, r == 0x202F, r == 0x205F, r == 0x3000:
			return ' '
		case r == 0xAD, r == 0x34F, r == 0x1806, 0x180B <= r && r <= 0x180D, r == 0x200C, r == 0x200D, r == 0x2060,
			0xFE00 <= r && r <= 0xFE0F, r == 0xFEFF:
			return -1
		}
		return r
	}, s)
}

// ErrWrongPassword is returned by Authenticate if the client does not know the
// password.
var ErrWrongPassword = errors.New("wrong password")

// Authenticate makes a client prove that it knows the password. On success, the client
// expects AuthenticationOk next. The caller must send an *Error to the client. conn must
// have a deadline.
func (v *Verifier) Authenticate(conn io.ReadWriter) error {
	if err := sendAuthentication(conn,
		&pgproto3.AuthenticationSASL{AuthMechanisms: []string{scramMechanism}}); err != nil {
		return err
	}
	first, err := readSASL(conn)
	if err != nil {
		return err
	}
	mechanism, rest, _ := bytes.Cut(first, []byte{0})
	if string(mechanism) != scramMechanism || len(rest) < 4 || int64(binary.BigEndian.Uint32(rest)) != int64(len(rest)-4) {
		return protocolViolation("client selected an invalid SASL authentication mechanism")
	}
	x := &scramExchange{verifier: v}
	challenge, failure := x.first(string(rest[4:]))
	if failure != nil {
		return failure
	}
	if err := sendAuthentication(conn, &pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)}); err != nil {
		return err
	}
	final, err := readSASL(conn)
	if err != nil {
		return err
	}
	signature, err := x.final(string(final))
	if err != nil {
		return err
	}
	return sendAuthentication(conn, &pgproto3.AuthenticationSASLFinal{Data: []byte(signature)})
}

func sendAuthentication(w io.Writer, message pgproto3.BackendMessage) error {
	b, err := message.Encode(nil)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// readSASL reads the body of a message from the client.
func readSASL(r io.Reader) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if head[0] != 'p' || length < 4 || length > 4+maxSASLMessage {
		return nil, protocolViolation("expected SASL response, got message type " + fmt.Sprint(head[0]))
	}
	body := make([]byte, length-4)
	_, err := io.ReadFull(r, body)
	return body, err
}

// A scramExchange is the exchange with one client.
type scramExchange struct {
	verifier            *Verifier
	header              string // GS2
	nonce               string
	clientFirst, server string // client-first-message-bare and server-first-message
}

var errMalformed = protocolViolation("malformed SCRAM message")

// first returns the answer to the client's first message.
func (x *scramExchange) first(message string) (string, *Error) {
	flag, rest, ok1 := strings.Cut(message, ",")
	authzid, bare, ok2 := strings.Cut(rest, ",")
	switch {
	case !ok1 || !ok2:
		return "", errMalformed
	case flag != "n" && flag != "y":
		return "", &Error{
			Code: "08P01", Message: "malformed SCRAM message",
			Detail: "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.",
		}
	case authzid != "":
		return "", &Error{Code: "0A000", Message: "client uses authorization identity, but it is not supported"}
	case strings.HasPrefix(bare, "m="):
		return "", &Error{Code: "0A000", Message: "client requires an unsupported SCRAM extension"}
	}
	x.header, x.clientFirst = flag+",,", bare
	attributes := strings.Split(bare, ",")
	if len(attributes) < 2 || !strings.HasPrefix(attributes[0], "n=") {
		return "", errMalformed
	}
	nonce, ok := strings.CutPrefix(attributes[1], "r=")
	if !ok || nonce == "" || strings.ContainsFunc(nonce, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
		return "", errMalformed
	}
	x.nonce = nonce + rand.Text()
	x.server = fmt.Sprintf("r=%s,s=%s,i=%d", x.nonce, base64.StdEncoding.EncodeToString(x.verifier.salt), x.verifier.iterations)
	return x.server, nil
}

// final returns the answer to the client's final message. It returns
// ErrWrongPassword if the proof is wrong.
func (x *scramExchange) final(message string) (string, error) {
	i := strings.LastIndex(message, ",p=")
	if i < 0 {
		return "", errMalformed
	}
	without := message[:i]
	proof, err := base64.StdEncoding.Strict().DecodeString(message[i+len(",p="):])
	if err != nil || len(proof) != sha256.Size {
		return "", errMalformed
	}
	binding, rest, _ := strings.Cut(without, ",")
	nonce, _, _ := strings.Cut(rest, ",") // extensions may follow
	switch {
	case binding != "c="+base64.StdEncoding.EncodeToString([]byte(x.header)):
		return "", protocolViolation("unexpected SCRAM channel-binding attribute in client-final-message")
	case nonce != "r="+x.nonce:
		return "", protocolViolation("invalid SCRAM response")
	}
	exchange := x.clientFirst + "," + x.server + "," + without
	signature, accepted := []byte(nil), 0
	for _, k := range x.verifier.keys {
		key := make([]byte, sha256.Size)
		subtle.XORBytes(key, proof, sum(k.stored, exchange))
		stored := sha256.Sum256(key)
		if subtle.ConstantTimeCompare(stored[:], k.stored) == 1 {
			accepted, signature = 1, sum(k.server, exchange)
		}
	}
	if accepted != 1 {
		return "", ErrWrongPassword
	}
	return "v=" + base64.StdEncoding.EncodeToString(signature), nil
}

// sum returns the HMAC-SHA-256 of a text.
func sum(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, text)
	return h.Sum(nil)
}
