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

const most = 8

// serve answers all requests, those for /slow when resume is closed.
func serve(t *testing.T) (addr string, slow, resume chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	slow, resume = make(chan struct{}, 2*most), make(chan struct{})
	s := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			slow <- struct{}{}
			<-resume
		}
	})}
	limit := &Limit{Most: most}
	limit.Apply(s)
	go s.Serve(limit.Listener(l))
	t.Cleanup(func() { s.Close() })
	return l.Addr().String(), slow, resume
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
		addr, _, _ := serve(t)
		var held []net.Conn
		for range most {
			conn := open(t, addr, sent)
			if sent == get("/") {
				if err := answered(conn); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			held = append(held, conn)
		}
		if err := answered(open(t, addr, get("/"))); err != nil {
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
	addr, slow, resume := serve(t)
	busy := open(t, addr, get("/slow"))
	<-slow
	for range 3 * most {
		open(t, addr, "")
	}
	if err := answered(open(t, addr, get("/"))); err != nil { // all others are accepted
		t.Error(err)
	}
	close(resume)
	if err := answered(busy); err != nil {
		t.Error(err)
	}
}

func TestLimit_ClosesNewConnectionIfAllAreBeingAnswered(t *testing.T) {
	addr, slow, resume := serve(t)
	var busy []net.Conn
	for range most {
		busy = append(busy, open(t, addr, get("/slow")))
		<-slow
	}
	if !closed(open(t, addr, "")) {
		t.Error("a connection beyond the limit stays open")
	}
	close(resume)
	for _, conn := range busy {
		if err := answered(conn); err != nil {
			t.Error(err)
		}
	}
	if err := answered(open(t, addr, get("/"))); err != nil {
		t.Error(err)
	}
}
