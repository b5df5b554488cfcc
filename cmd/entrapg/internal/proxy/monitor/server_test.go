package monitor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
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

// TestServer_AnswersWhileClientsHoldConnections holds more connections than the limit,
// like an attacker that makes probes fail.
func TestServer_AnswersWhileClientsHoldConnections(t *testing.T) {
	const withoutBody = "GET /startup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
	for name, sent := range map[string]string{
		"nothing": "", "part of a request": withoutBody[:20], "request without its body": withoutBody,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handled := make(chan struct{}, maxConnections+1)
			addr := serve(t, Pages{Started: func() bool { handled <- struct{}{}; return true }})
			for range maxConnections + 1 {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				io.WriteString(conn, sent)
			}
			if sent == withoutBody {
				for range maxConnections {
					<-handled
				}
			}
			if status, _, body := request(t, "GET", "http://"+addr+"/liveness"); status != http.StatusOK {
				t.Errorf("%d %s", status, body)
			}
		})
	}
}

// A script in a browser can send requests through a name that its author lets resolve to
// a loopback address.
func TestServer_AnswersOnlyLocalHostsOnLoopback(t *testing.T) {
	addr := serve(t, Pages{})
	for host, want := range map[string]string{
		"127.0.0.1": "200", "127.0.0.1:9090": "200", "[::1]:9090": "200", "[::1]": "200", "10.0.0.1:9090": "200",
		"localhost": "200", "LocalHost:9090": "200", "": "200",
		"evil.example": "421", "evil.example:9090": "421", "localhost.evil.example": "421", "127.0.0.1.evil.example": "421",
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /liveness HTTP/1.1\r\nHost: %s\r\n\r\n", host)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(line, want) {
			t.Errorf("Host %q: %q, %v; want %s", host, line, err, want)
		}
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
