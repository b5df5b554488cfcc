package connlimit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

const limit = 8

// A server answers all requests, those for /slow when resume is closed.
type server struct {
	addr   string
	slow   chan struct{} // receives when the handler has a request for /slow
	resume chan struct{}
	idle   chan struct{} // receives when a connection waits for its next request
}

func serve(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{
		addr:   l.Addr().String(),
		slow:   make(chan struct{}, 2*limit),
		resume: make(chan struct{}),
		idle:   make(chan struct{}, 2*limit),
	}
	h := &http.Server{
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				s.slow <- struct{}{}
				<-s.resume
			}
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateIdle {
				s.idle <- struct{}{}
			}
		},
	}
	connections := &Limit{Max: limit}
	connections.Apply(h)
	go h.Serve(connections.Listener(l))
	t.Cleanup(func() { h.Close() })
	return s
}

func open(t *testing.T, addr, sent string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, sent)
	return conn
}

func get(path string) string { return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path) }

func answered(conn net.Conn) error {
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.Contains(line, "200") {
		err = errors.New(line)
	}
	return err
}

func closed(conn net.Conn) bool {
	_, err := io.Copy(io.Discard, conn)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

func TestLimit_ClosesOldestConnection(t *testing.T) {
	for name, sent := range map[string]string{"silent": "", "slow to send": "GET", "idle": get("/")} {
		s := serve(t)
		var held []net.Conn
		for range limit {
			conn := open(t, s.addr, sent)
			if sent == get("/") {
				if err := answered(conn); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				<-s.idle // a client has the answer before the server counts it as sent
			}
			held = append(held, conn)
		}
		if err := answered(open(t, s.addr, get("/"))); err != nil {
			t.Errorf("%s: the new connection: %v", name, err)
		}
		if !closed(held[0]) {
			t.Errorf("%s: the oldest connection stays open", name)
		}
		io.WriteString(held[1], strings.TrimPrefix(get("/"), strings.TrimSuffix(sent, get("/"))))
		if err := answered(held[1]); err != nil {
			t.Errorf("%s: the second connection: %v", name, err)
		}
	}
}

func TestLimit_KeepsConnectionThatIsBeingAnswered(t *testing.T) {
	s := serve(t)
	busy := open(t, s.addr, get("/slow"))
	<-s.slow
	for range 3 * limit {
		open(t, s.addr, "")
	}
	if err := answered(open(t, s.addr, get("/"))); err != nil { // all others are accepted
		t.Error(err)
	}
	close(s.resume)
	if err := answered(busy); err != nil {
		t.Error(err)
	}
}

func TestLimit_ClosesNewConnectionIfAllAreBeingAnswered(t *testing.T) {
	s := serve(t)
	var busy []net.Conn
	for range limit {
		busy = append(busy, open(t, s.addr, get("/slow")))
		<-s.slow
	}
	if !closed(open(t, s.addr, "")) {
		t.Error("a connection beyond the limit stays open")
	}
	close(s.resume)
	for _, conn := range busy {
		if err := answered(conn); err != nil {
			t.Error(err)
		}
		<-s.idle
	}
	if err := answered(open(t, s.addr, get("/"))); err != nil {
		t.Error(err)
	}
}
