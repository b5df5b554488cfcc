package pgwire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// FuzzExchange checks that an Exchange without a token forwards messages unchanged.
func FuzzExchange(f *testing.F) {
	f.Add([]byte("R\x00\x00\x00\x08\x00\x00\x00\x03Z\x00\x00\x00\x05I and so on"), 3)
	f.Add([]byte("N\x00\x00\x00\x03S\xff\xff\xff\xff"), 1)
	f.Fuzz(func(t *testing.T, sent []byte, size int) {
		x := &pgwire.Exchange{Reader: iotest.OneByteReader(bytes.NewReader(sent))} // in pieces, as from a network
		if size > 0 {
			x.Reader = bytes.NewReader(sent)
		}
		var got []byte
		piece := make([]byte, max(1, min(size, 1<<16)))
		var err error
		for err == nil {
			var n int
			n, err = x.Read(piece)
			got = append(got, piece[:n]...)
		}
		if !bytes.HasPrefix(sent, got) || errors.Is(err, io.EOF) && len(got) < len(sent) {
			t.Errorf("%q became %q, error %v", sent, got, err)
		}
		if limit := !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF); limit && x.Outcome == pgwire.Pending {
			t.Errorf("outcome %v after %v", x.Outcome, err)
		}
	})
}

func TestExchange_SendsTokenInPlaceOfEmptyPassword(t *testing.T) {
	for name, test := range map[string]struct {
		from, to pgproto3.FrontendMessage
		sent     bool
	}{
		"password": {&pgproto3.PasswordMessage{}, &pgproto3.PasswordMessage{Password: "the token"}, true},
		"OAUTHBEARER": {
			&pgproto3.SASLInitialResponse{AuthMechanism: "OAUTHBEARER", Data: []byte("n,,\x01auth=Bearer \x01\x01")},
			&pgproto3.SASLInitialResponse{AuthMechanism: "OAUTHBEARER", Data: []byte("n,,\x01auth=Bearer the token\x01\x01")},
			true,
		},
		"another password": {&pgproto3.PasswordMessage{Password: "md5"}, &pgproto3.PasswordMessage{Password: "md5"}, false},
		"startup": {
			&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "u"}},
			&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "u"}},
			false,
		},
	} {
		var out bytes.Buffer
		x := &pgwire.Exchange{Writer: &out, Token: func() string { return "the token" }}
		from, want := encode(t, test.from), encode(t, test.to)
		if n, err := x.Write(from); n != len(from) || err != nil {
			t.Errorf("%s: Write: %d, %v", name, n, err)
		}
		if !bytes.Equal(out.Bytes(), want) || x.Sent != test.sent {
			t.Errorf("%s: sent %q, want %q; Sent %t", name, out.Bytes(), want, x.Sent)
		}
	}
}

type observer func()

func (o observer) ExchangeEnded(*pgwire.Exchange) { o() }

func TestExchange_ReportsOutcomeOnce(t *testing.T) {
	for name, test := range map[string]struct {
		messages []pgproto3.BackendMessage
		bearer   bool
		want     pgwire.Outcome
	}{
		"accepted": {
			[]pgproto3.BackendMessage{&pgproto3.AuthenticationOk{}, &pgproto3.ReadyForQuery{TxStatus: 'I'}},
			false,
			pgwire.Accepted,
		},
		"rejected": {[]pgproto3.BackendMessage{&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01"}}, false, pgwire.Rejected},
		"failed":   {[]pgproto3.BackendMessage{&pgproto3.ErrorResponse{Severity: "FATAL", Code: "53300"}}, false, pgwire.Failed},
		"error, cut": {
			[]pgproto3.BackendMessage{&pgproto3.ErrorResponse{Code: "53300"}, &pgproto3.ErrorResponse{Code: "28000"}},
			false,
			pgwire.Failed,
		},
		"cut": {[]pgproto3.BackendMessage{&pgproto3.AuthenticationOk{}}, false, pgwire.Broken},
		"bearer": {
			[]pgproto3.BackendMessage{&pgproto3.AuthenticationSASLContinue{Data: []byte(`{"status":"invalid_token"}`)}},
			true,
			pgwire.Rejected,
		},
		"SCRAM":          {[]pgproto3.BackendMessage{&pgproto3.AuthenticationSASLContinue{Data: []byte(`r=`)}}, false, pgwire.Broken},
		"error to token": {[]pgproto3.BackendMessage{&pgproto3.ErrorResponse{Code: "28000"}}, true, pgwire.Rejected},
	} {
		var in bytes.Buffer
		for _, m := range test.messages {
			in.Write(encode(t, m))
		}
		calls := 0
		x := &pgwire.Exchange{
			Reader:   &in,
			Writer:   io.Discard,
			Token:    func() string { return "the token" },
			Observer: observer(func() { calls++ }),
		}
		if test.bearer {
			if _, err := x.Write(encode(t, &pgproto3.SASLInitialResponse{
				AuthMechanism: "OAUTHBEARER",
				Data:          []byte("n,,\x01auth=Bearer \x01\x01"),
			})); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.Copy(io.Discard, x); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if x.Outcome != test.want || calls != 1 {
			t.Errorf("%s: outcome %v after %d calls, want %v after 1", name, x.Outcome, calls, test.want)
		}
	}
}

func TestExchange_ContinuesAfterTimeout(t *testing.T) {
	x := &pgwire.Exchange{Reader: iotest.ErrReader(os.ErrDeadlineExceeded)}
	if _, err := x.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || x.Outcome != pgwire.Pending {
		t.Errorf("outcome %v, error %v", x.Outcome, err)
	}
}

func TestExchange_BreaksAfterTimeoutWithinMessage(t *testing.T) {
	for _, part := range []string{"R\x00", "R\x00\x00\x00\x08\x00\x00"} {
		x := &pgwire.Exchange{Reader: io.MultiReader(
			strings.NewReader(part), iotest.ErrReader(os.ErrDeadlineExceeded),
			strings.NewReader("\x00\x00\x00\x03"),
		)}
		for range 2 {
			if n, err := x.Read(make([]byte, 100)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || x.Outcome != pgwire.Broken {
				t.Errorf("%q: read %d bytes, outcome %v, error %v", part, n, x.Outcome, err)
			}
		}
	}
}

// A brokenWriter fails every Write.
type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestExchange_BreaksIfTokenCannotBeWritten(t *testing.T) {
	for err, outcome := range map[error]pgwire.Outcome{
		io.ErrClosedPipe:       pgwire.Broken,
		os.ErrDeadlineExceeded: pgwire.Pending,
	} {
		x := &pgwire.Exchange{Writer: brokenWriter{err}, Token: func() string { return "the token" }}
		if _, got := x.Write(encode(t, &pgproto3.PasswordMessage{})); !errors.Is(got, err) ||
			x.Outcome != outcome || !x.Sent {
			t.Errorf("%v: error %v, outcome %v, sent %t", err, got, x.Outcome, x.Sent)
		}
	}
}

func TestExchange_SendsTokenOnce(t *testing.T) {
	var out bytes.Buffer
	x := &pgwire.Exchange{Writer: &out, Token: func() string { return "the token" }}
	password := encode(t, &pgproto3.PasswordMessage{})
	if _, err := x.Write(password); err != nil {
		t.Fatal(err)
	}
	sent := out.Len()
	if _, err := x.Write(password); err == nil || out.Len() != sent {
		t.Errorf("error %v, %d more bytes sent", err, out.Len()-sent)
	}
}

func TestExchange_ErrSendsNothing(t *testing.T) {
	broken := errors.New("broken")
	var out bytes.Buffer
	x := &pgwire.Exchange{Reader: strings.NewReader("Z"), Writer: &out, Err: broken}
	_, writeErr := x.Write([]byte("startup"))
	_, readErr := x.Read(make([]byte, 1))
	if !errors.Is(writeErr, broken) || !errors.Is(readErr, broken) || out.Len() > 0 {
		t.Errorf("Write: %v, Read: %v, %d bytes sent", writeErr, readErr, out.Len())
	}
}

func TestExchange_BoundsWhatServerSends(t *testing.T) {
	head := func(kind byte, length uint32) []byte { return binary.BigEndian.AppendUint32([]byte{kind}, length) }
	for name, sent := range map[string][]byte{
		"length":     head('S', 1<<30),
		"length −1":  head('S', 1<<32-1),
		"many bytes": bytes.Repeat(encode(t, &pgproto3.NoticeResponse{Message: strings.Repeat("x", 1000)}), 1100),
		"requests":   bytes.Repeat(encode(t, &pgproto3.AuthenticationCleartextPassword{}), 9),
	} {
		x := &pgwire.Exchange{Reader: bytes.NewReader(sent)}
		n, err := io.Copy(io.Discard, x)
		if err == nil || x.Outcome != pgwire.Broken || n > 1<<18 {
			t.Errorf("%s: %d bytes, outcome %v, error %v", name, n, x.Outcome, err)
		}
	}
}

func encode(t *testing.T, m interface {
	Encode([]byte) ([]byte, error)
},
) []byte {
	t.Helper()
	b, err := m.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
