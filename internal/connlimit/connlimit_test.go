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

// A server answers all requests, those for /slow when resume is closed. For /read, it
// reads the body first.
type server struct {
	addr   string
	slow   chan struct{} // receives when the handler has a request for /slow
	resume chan struct{}
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
	}
	h := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/slow":
				s.slow <- struct{}{}
				<-s.resume
			case "/read":
				io.Copy(w, r.Body)
			}
		}),
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

// post is a request without its body of one byte.
func post(path string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", path)
}

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
	for name, test := range map[string]struct{ sent, rest string }{
		"silent":                {"", get("/")},
		"slow to send":          {get("/")[:3], get("/")[3:]},
		"idle":                  {get("/"), get("/")},
		"body that is not sent": {post("/"), "x"},
		"body that is read":     {post("/read"), "x"},
	} {
		s := serve(t)
		var held []net.Conn
		for range limit {
			conn := open(t, s.addr, test.sent)
			if test.sent == test.rest {
				if err := answered(conn); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			held = append(held, conn)
		}
		if err := answered(open(t, s.addr, get("/"))); err != nil {
			t.Errorf("%s: the new connection: %v", name, err)
		}
		if !closed(held[0]) {
			t.Errorf("%s: the oldest connection stays open", name)
		}
		io.WriteString(held[1], test.rest)
		if err := answered(held[1]); err != nil {
			t.Errorf("%s: the second connection: %v", name, err)
		}
	}
}

func TestLimit_ClosesConnectionThatWaitsLongest(t *testing.T) {
	s := serve(t)
	var held []net.Conn
	for range limit {
		held = append(held, open(t, s.addr, get("/")))
		if err := answered(held[len(held)-1]); err != nil {
			t.Fatal(err)
		}
	}
	io.WriteString(held[0], post("/read")+"x")
	if err := answered(held[0]); err != nil {
		t.Fatal(err)
	}
	if err := answered(open(t, s.addr, get("/"))); err != nil {
		t.Error(err)
	}
	if !closed(held[1]) {
		t.Error("the connection that was answered first stays open")
	}
	io.WriteString(held[0], get("/"))
	if err := answered(held[0]); err != nil {
		t.Errorf("the connection that was answered last: %v", err)
	}
}

func TestLimit_KeepsConnectionThatIsBeingAnswered(t *testing.T) {
	s := serve(t)
	busy := open(t, s.addr, get("/slow"))
	<-s.slow
	for range limit {
		open(t, s.addr, "")
		open(t, s.addr, post("/"))
		open(t, s.addr, post("/read"))
	}
	if err := answered(open(t, s.addr, get("/"))); err != nil { // all others are accepted
		t.Error(err)
	}
	close(s.resume)
	if err := answered(busy); err != nil {
		t.Error(err)
	}
}

// Clients that do not read their answers must not keep others out.
func TestLimit_ClosesOldestRequestIfMostAreBeingAnswered(t *testing.T) {
	s := serve(t)
	var busy, others []net.Conn
	for range limit {
		busy = append(busy, open(t, s.addr, get("/slow")))
		<-s.slow
	}
	for range limit / 2 {
		others = append(others, open(t, s.addr, ""))
	}
	for _, conn := range others {
		io.WriteString(conn, get("/"))
		if err := answered(conn); err != nil {
			t.Errorf("a new connection: %v", err)
		}
	}
	for _, conn := range busy[:limit/2] {
		if !closed(conn) {
			t.Error("a connection with an old request stays open")
		}
	}
	close(s.resume)
	for _, conn := range busy[limit/2:] {
		if err := answered(conn); err != nil {
			t.Errorf("a connection with a newer request: %v", err)
		}
	}
}
