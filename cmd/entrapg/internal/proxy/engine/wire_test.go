package engine_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"regexp"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/entrapg/entrapg"
)

func withApp(credential azcore.TokenCredential) []entrapg.Option {
	return []entrapg.Option{entrapg.WithCredential(credential), entrapg.WithLogger(nil)}
}

// A wire is a client that writes the protocol itself.
type wire struct {
	net.Conn
	t *testing.T
}

func dialWire(t *testing.T, network, address string) *wire {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(context.WithoutCancel(t.Context()), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return &wire{conn, t}
}

func (w *wire) write(b []byte) {
	w.t.Helper()
	if _, err := w.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

// startup sends a startup message.
func (w *wire) startup(version string, parameters ...string) {
	w.t.Helper()
	var major, minor uint16
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		w.t.Fatal(err)
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 4), major)
	b = binary.BigEndian.AppendUint16(b, minor)
	for _, p := range parameters {
		b = append(append(b, p...), 0)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	w.write(b)
}

func (w *wire) send(kind byte, body string) {
	w.t.Helper()
	w.write(append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body))), body...))
}

// next returns the next message, or "" at the end.
func (w *wire) next() string {
	w.t.Helper()
	head := make([]byte, 5)
	if _, err := io.ReadFull(w, head); err != nil {
		if err == io.EOF {
			return ""
		}
		w.t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	if _, err := io.ReadFull(w, body); err != nil {
		w.t.Fatal(err)
	}
	return string(head) + string(body)
}

// untilReady returns the messages until ReadyForQuery or the end.
func (w *wire) untilReady() []string {
	w.t.Helper()
	for messages := []string(nil); ; {
		m := w.next()
		if m == "" {
			return messages
		}
		if messages = append(messages, m); m[0] == 'Z' {
			return messages
		}
	}
}

// untilAuthentication returns the messages before the first about authentication.
func (w *wire) untilAuthentication() []string {
	w.t.Helper()
	for messages := []string(nil); ; {
		m := w.next()
		if m == "" || m[0] == 'R' {
			return messages
		}
		messages = append(messages, m)
	}
}

func kindsOf(messages []string) string {
	var kinds []byte
	for _, m := range messages {
		kinds = append(kinds, m[0])
	}
	return string(kinds)
}

func matchKinds(kinds, pattern string) bool {
	return regexp.MustCompile("^" + pattern + "$").MatchString(kinds)
}
