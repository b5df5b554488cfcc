package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
)

func TestCancel_CancelsQueryOfPsql(t *testing.T) {
	s := server(t)
	app := newIdentity(t, s)
	p := start(t, &engine.Server{Upstream: to(t, s, app), Password: password})
	cmd := p.psql(t, "application_name=sleeper", "-c", "select pg_sleep(600)")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watcher := p.connect(t, "")
	await(t, "the query", func() bool {
		return query(t, watcher, "select count(*)::text from pg_stat_activity where application_name = 'sleeper' and state = 'active'") == "1"
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if !strings.Contains(out.String(), "canceling statement due to user request") {
		t.Errorf("psql printed %s, error %v", out.String(), err)
	}
	await(t, "the counter", func() bool { return p.Stats().Cancels == 1 })
}

func TestCancel_AcceptsLongKey(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	conn := p.connect(t, "max_protocol_version=latest")
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.WithoutCancel(t.Context()), "select pg_sleep(600)")
		ended <- err
	}()
	await(t, "the cancellation", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := conn.PgConn().CancelRequest(ctx); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if response, ok := asPgError(err); !ok || response.Code != "57014" {
				t.Errorf("error %v", err)
			}
			return true
		default:
			return false
		}
	})
}

func TestCancel_NeedsNoSlotOfLimit(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s)), Limit: engine.NewLimit(1)})
	conn := p.connect(t, "")
	if rejected := p.rejection(t, ""); rejected.Code != "53300" {
		t.Errorf("rejected with %+v", rejected)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := conn.PgConn().CancelRequest(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, "the cancel request", func() bool { return p.Stats().Cancels == 1 })
}

func TestCancel_UnknownKeyIsDropped(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	conn := p.connect(t, "")
	for _, key := range [][]byte{{1, 2, 3, 4}, {}, bytes.Repeat([]byte{7}, 256), bytes.Repeat([]byte{7}, 257)} {
		client := dialWire(t, p.addr.Network(), p.addr.String())
		b := binary.BigEndian.AppendUint32(nil, uint32(12+len(key)))
		b = binary.BigEndian.AppendUint32(b, 80877102)
		client.write(append(binary.BigEndian.AppendUint32(b, conn.PgConn().PID()), key...))
		if answer := client.next(); answer != "" {
			t.Errorf("a key of %d bytes is answered %q", len(key), answer)
		}
	}
	if n := p.Stats().Cancels; n != 0 {
		t.Errorf("%d cancel requests forwarded", n)
	}
}

// TestCancel_DistinguishesServersWithEqualKeys connects to two servers that issue the
// same process ID and secret.
func TestCancel_DistinguishesServersWithEqualKeys(t *testing.T) {
	first, second := newKeyServer(t), newKeyServer(t)
	dsn := fmt.Sprintf("postgres://app:x@%s,%s/postgres?sslmode=disable&entra_credential=none", first.addr, second.addr)
	p := start(t, &engine.Server{Upstream: upstream(t, dsn, entrapg.WithLogger(nil))})
	var keys [][]byte
	for range 2 {
		client := dialWire(t, p.addr.Network(), p.addr.String())
		client.startup("3.2", "user", "client", "database", "postgres")
		messages := client.untilReady()
		i := slices.IndexFunc(messages, func(m string) bool { return m[0] == 'K' })
		if i < 0 {
			t.Fatalf("no key: %q", messages)
		}
		keys = append(keys, []byte(messages[i][5:]))
	}
	if bytes.Equal(keys[0], keys[1]) || len(keys[0]) != len(keys[1]) || !bytes.Equal(keys[0][:4], keys[1][:4]) {
		t.Errorf("keys %x and %x, want the same length and process ID, and other secrets", keys[0], keys[1])
	}
	for i, s := range []*keyServer{first, second} {
		client := dialWire(t, p.addr.Network(), p.addr.String())
		client.write(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(8+len(keys[i]))), 80877102))
		client.write(keys[i])
		client.next()
		if got := s.canceled(); len(got) != 1 || !bytes.Equal(got[0], sameKey) {
			t.Errorf("server %d got the cancel requests %x, want its own key", i+1, got)
		}
	}
}

var sameKey = append([]byte{0, 0, 0, 42}, bytes.Repeat([]byte{9}, 32)...)

// A keyServer accepts one session, and cancel requests.
type keyServer struct {
	addr string

	mu       sync.Mutex
	sessions int
	cancels  [][]byte
}

func newKeyServer(t *testing.T) *keyServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &keyServer{addr: l.Addr().String()}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				running.Go(func() { s.serve(conn) })
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return s
}

func (s *keyServer) canceled() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cancels
}

func (s *keyServer) serve(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	backend := pgproto3.NewBackend(conn, conn)
	message, err := backend.ReceiveStartupMessage()
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel, ok := message.(*pgproto3.CancelRequest); ok {
		s.cancels = append(s.cancels, append(binary.BigEndian.AppendUint32(nil, cancel.ProcessID), cancel.SecretKey...))
		return
	}
	if s.sessions++; s.sessions > 1 {
		backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "53300", Message: "too many"})
		_ = backend.Flush()
		return
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.BackendKeyData{ProcessID: binary.BigEndian.Uint32(sameKey), SecretKey: sameKey[4:]})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if backend.Flush() != nil {
		return
	}
	s.mu.Unlock()
	_, _ = conn.Read(make([]byte, 1)) // until the client disconnects
	s.mu.Lock()
}
