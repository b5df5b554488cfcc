package monitor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve serves pages for one test and returns their address.
func serve(t *testing.T, pages Pages) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(l, pages)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func request(t *testing.T, method, url string) (status int, contentType, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header.Get("Content-Type"), string(text)
}

func TestServer_AnswersProbesAndScrapes(t *testing.T) {
	var started, ready atomic.Bool
	addr := serve(t, Pages{
		Started: started.Load,
		Ready: func() error {
			if ready.Load() {
				return nil
			}
			return errors.New("draining")
		},
		Metrics: func(m *Metrics) { m.Add("a", Gauge, "A.", Sample{Value: 1}) },
	})
	const plain = "text/plain; charset=utf-8"
	for _, test := range []struct {
		started, ready bool
		method, path   string
		status         int
		contentType    string
		body           string
	}{
		{false, false, "GET", "/startup", 503, plain, "starting\n"},
		{true, false, "GET", "/startup", 200, plain, "started\n"},
		{false, false, "GET", "/liveness", 200, plain, "alive\n"},
		{true, false, "GET", "/readiness", 503, plain, "draining\n"},
		{true, true, "GET", "/readiness", 200, plain, "ready\n"},
		{true, true, "HEAD", "/readiness", 200, plain, ""},
		{true, true, "GET", "/metrics", 200, ContentType, "# HELP a A.\n# TYPE a gauge\na 1\n"},
		{true, true, "POST", "/metrics", 405, plain, "Method Not Allowed\n"},
		{true, true, "DELETE", "/readiness", 405, plain, "Method Not Allowed\n"},
		{true, true, "GET", "/", 404, plain, "404 page not found\n"},
		{true, true, "GET", "/readiness/x", 404, plain, "404 page not found\n"},
	} {
		started.Store(test.started)
		ready.Store(test.ready)
		status, contentType, body := request(t, test.method, "http://"+addr+test.path)
		if status != test.status || contentType != test.contentType || body != test.body {
			t.Errorf("%s %s: %d %s %q, want %d %s %q", test.method, test.path, status, contentType, body, test.status, test.contentType, test.body)
		}
	}
}

// TestServer_ClosesOldestConnectionBeyondLimit holds more connections than the
// limit, like an attacker who wants probes to fail.
func TestServer_ClosesOldestConnectionBeyondLimit(t *testing.T) {
	addr := serve(t, Pages{Started: func() bool { return true }, Ready: func() error { return nil }})
	var held []net.Conn
	for range maxConnections + 1 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		held = append(held, conn)
		fmt.Fprintf(conn, "GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n") // stays open
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(line, "200") {
			t.Fatalf("connection %d is answered %q, %v", len(held), line, err)
		}
	}
	held[0].SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, held[0]); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the oldest connection stays open")
	}
	fmt.Fprintf(held[1], "GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n")
	held[1].SetReadDeadline(time.Now().Add(time.Minute))
	line, err := bufio.NewReader(held[1]).ReadString('\n')
	if err != nil || !strings.Contains(line, "200") {
		t.Errorf("the second connection is answered %q, %v", line, err)
	}
}

func TestServer_LimitsHeaders(t *testing.T) {
	addr := serve(t, Pages{})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /liveness HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n", strings.Repeat("x", 16<<10))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "431") {
		t.Errorf("16 KiB of headers: %q, %v", line, err)
	}
}
