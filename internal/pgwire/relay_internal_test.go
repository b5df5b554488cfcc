package pgwire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// connPair returns the two ends of a connection. They have deadlines.
func connPair(t *testing.T, network string) (near, far net.Conn) {
	t.Helper()
	if network == "pipe" {
		a, b := net.Pipe()
		return pipeEnd{a}, pipeEnd{b}
	}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = t.TempDir() + "/socket"
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{near, far} {
		c.SetDeadline(time.Now().Add(time.Minute))
		t.Cleanup(func() { c.Close() })
	}
	return near, far
}

// A pipeEnd is an end of a net.Pipe, which cannot close one direction.
type pipeEnd struct{ net.Conn }

func (pipeEnd) CloseWrite() error { return errors.ErrUnsupported }

// A way is a kind of connections and a mover of a Relay.
type way struct {
	network    string
	goroutines bool // even on systems with loops
	secure     bool
}

func (w way) String() string {
	name := "loop"
	if w.goroutines {
		name = "goroutines"
	}
	if w.secure {
		name += " over TLS"
	}
	return name + " over " + w.network
}

// ways are those of inEachWay.
var ways = []way{
	{"tcp", false, false},
	{"tcp", false, true},
	{"unix", false, false},
	{"tcp", true, false},
	{"tcp", true, true},
}

// inEachWay runs a test in each way.
func inEachWay(t *testing.T, test func(t *testing.T, w way)) {
	for _, w := range ways {
		t.Run(w.String(), func(t *testing.T) { test(t, w) })
	}
}

// inEachWayOnTime runs a test that depends on time in each way. The ways with goroutines use
// pipes in the time of synctest.
func inEachWayOnTime(t *testing.T, test func(t *testing.T, w way)) {
	t.Parallel()
	for _, w := range []way{
		{"tcp", false, false},
		{"tcp", false, true},
		{"unix", false, true},
		{"pipe", true, false},
		{"pipe", true, true},
	} {
		t.Run(w.String(), func(t *testing.T) {
			if w.network == "pipe" {
				synctest.Test(t, func(t *testing.T) { test(t, w) })
				return
			}
			t.Parallel()
			test(t, w)
		})
	}
}

// noSocket hides that a connection is a socket.
type noSocket struct{ halfConn }

// A halfConn can close one direction.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// connect returns a connection for a Relay and its far end.
func (w way) connect(t *testing.T) (near net.Conn, far halfConn) {
	t.Helper()
	network, opposite := connPair(t, w.network)
	if w.goroutines && w.network != "pipe" {
		network = noSocket{network.(halfConn)}
	}
	near, far = NewConn(network), opposite.(halfConn)
	if w.secure {
		server := tls.Server(far, tlsConfig(t))
		client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
		go server.Handshake()
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		near, far = client, server
	}
	near.SetDeadline(time.Time{})
	return near, far
}

// start runs a Relay. It returns the far ends of its connections, and a channel
// that is closed when the Relay has ended.
func (w way) start(t *testing.T, r *Relay) (client, server halfConn, done chan struct{}) {
	t.Helper()
	r.Client, client = w.connect(t)
	r.Server, server = w.connect(t)
	done = make(chan struct{})
	go func() {
		defer close(done)
		r.Run()
	}()
	t.Cleanup(func() {
		r.Close()
		<-done
	})
	return client, server, done
}

func TestRelay_PassesOnWhatWasReadBefore(t *testing.T) {
	inEachWay(t, func(t *testing.T, w way) {
		client, server, _ := w.start(t, &Relay{FromClient: []byte("from client, "), FromServer: []byte("from server, ")})
		for name, test := range map[string]struct {
			from, to net.Conn
		}{"from client": {client, server}, "from server": {server, client}} {
			if _, err := test.from.Write([]byte("and then")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(name+", and then"))
			if _, err := io.ReadFull(test.to, got); err != nil || string(got) != name+", and then" {
				t.Errorf("%q, error %v", got, err)
			}
		}
	})
}

func TestRelay_PassesOnEnds(t *testing.T) {
	inEachWay(t, func(t *testing.T, w way) {
		client, server, done := w.start(t, new(Relay))
		if _, err := client.Write([]byte("query")); err != nil {
			t.Fatal(err)
		}
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(server); err != nil || string(got) != "query" {
			t.Errorf("the server got %q, error %v", got, err)
		}
		answer := strings.Repeat("answer", 500_000)
		go func() {
			_, _ = server.Write([]byte(answer))
			server.Close()
		}()
		if got, err := io.ReadAll(client); err != nil || string(got) != answer {
			t.Errorf("the client got %d bytes, error %v", len(got), err)
		}
		<-done
	})
}

// TestRelay_DeliversFinalMessage ends the server while the client sends.
func TestRelay_DeliversFinalMessage(t *testing.T) {
	inEachWay(t, func(t *testing.T, w way) {
		client, server, done := w.start(t, new(Relay))
		go flood(client)
		if _, err := io.ReadFull(server, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Write([]byte("final message")); err != nil {
			t.Fatal(err)
		}
		_ = server.CloseWrite()
		got := make([]byte, len("final message"))
		if _, err := io.ReadFull(client, got); err != nil || string(got) != "final message" {
			t.Errorf("the client got %q, error %v", got, err)
		}
		server.Close()
		client.Close()
		<-done
	})
}

func TestRelay_StopTellsClientsBetweenMessages(t *testing.T) {
	inEachWayOnTime(t, func(t *testing.T, w way) {
		failure := &Error{Code: "57P01", Message: "the end"}
		for name, test := range map[string]struct {
			sent string
			told bool
		}{
			"ready":       {"C\x00\x00\x00\x05\x00Z\x00\x00\x00\x05I", true},
			"in a result": {"D\x00\x00\x00\xff\x00", false},
			"nothing yet": {"", false},
		} {
			r := new(Relay)
			client, server, done := w.start(t, r)
			for i := range len(test.sent) { // one byte at a time
				if _, err := server.Write([]byte{test.sent[i]}); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			r.Stop(failure)
			rest, err := io.ReadAll(client)
			if err != nil || bytes.Equal(rest, failure.Encode()) != test.told || !test.told && len(rest) > 0 {
				t.Errorf("%s: the client got %q, error %v", name, rest, err)
			}
			client.Close()
			<-done
		}
	})
}

func TestRelay_StopEndsClientThatDoesNotRead(t *testing.T) {
	inEachWayOnTime(t, func(t *testing.T, w way) {
		r := new(Relay)
		_, server, done := w.start(t, r)
		go flood(server)
		awaitStandstill(r)
		r.Stop(&Error{})
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Error("the session continues")
		}
	})
}

// Neither the client nor the server reads. TLS, which must send its end too, would wait for
// five seconds.
func TestRelay_StopEndsSessionThatIsStuck(t *testing.T) {
	inEachWayOnTime(t, func(t *testing.T, w way) {
		r := new(Relay)
		client, server, done := w.start(t, r)
		size := 64 << 20
		if w.network == "pipe" {
			size = 1 << 20 // pipes hold nothing
		}
		for _, c := range []net.Conn{client, server} {
			go c.Write(make([]byte, size))
		}
		awaitStandstill(r)
		begun := time.Now()
		r.Stop(&Error{})
		<-done
		if took := time.Since(begun); w.network == "pipe" && took > time.Second+linger {
			t.Errorf("the session ended after %s", took)
		}
	})
}

// flood writes until that fails.
func flood(w io.Writer) {
	for {
		if _, err := w.Write(make([]byte, 1<<16)); err != nil {
			return
		}
	}
}

// awaitStandstill waits until a flooded Relay forwards no more bytes.
func awaitStandstill(r *Relay) {
	for previous := [2]int64{}; ; time.Sleep(100 * time.Millisecond) {
		received, sent := r.Bytes()
		now := [2]int64{received, sent}
		if now == previous && now != [2]int64{} {
			return
		}
		previous = now
	}
}

// tlsConfig returns a configuration with a new certificate.
func tlsConfig(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestConn_DrainDoesNotWait(t *testing.T) {
	near, far := connPair(t, "tcp")
	c := NewConn(near)
	if _, err := far.Write([]byte("some")); err != nil {
		t.Fatal(err)
	}
	if err := c.Fill(); err != nil || string(c.buffered()) != "some" {
		t.Fatalf("%q, error %v", c.buffered(), err)
	}
	c.nonblocking = true
	got := make([]byte, 10)
	if n, err := c.Read(got); err != nil || string(got[:n]) != "some" {
		t.Errorf("%q, error %v", got[:n], err)
	}
	if _, err := c.Read(got); !errors.Is(err, errWouldBlock) {
		t.Errorf("error %v", err)
	}
	c.nonblocking = false
	far.Close()
	if _, err := c.Read(got); !errors.Is(err, io.EOF) {
		t.Errorf("error %v at the end", err)
	}
	if c.buffer != nil {
		t.Error("the Conn keeps its buffer")
	}
}

// TestRelay_SlowReaderDoesNotStopOthers uses one loop for two clients, one of which does
// not read.
func TestRelay_SlowReaderDoesNotStopOthers(t *testing.T) {
	w := way{network: "tcp"}
	slow, source, _ := w.start(t, new(Relay))
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	go func() {
		_, _ = source.Write(text)
		source.Close()
	}()
	for range 2 * runtime.GOMAXPROCS(0) {
		client, server, _ := w.start(t, new(Relay))
		exchange(t, client, server, 100)
	}
	if got, err := io.ReadAll(slow); err != nil || !bytes.Equal(got, text) {
		t.Errorf("the slow client got %d of %d bytes, error %v", len(got), len(text), err)
	}
}

// exchange sends short queries and answers.
func exchange(t *testing.T, client, server net.Conn, n int) {
	t.Helper()
	for range n {
		for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
			if _, err := pair[0].Write([]byte("short")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(pair[1], make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The client reads nothing until it has sent everything.
func TestRelay_ForwardsLargeTextBothWays(t *testing.T) {
	inEachWay(t, func(t *testing.T, w way) {
		client, server, _ := w.start(t, new(Relay))
		text := bytes.Repeat([]byte("0123456789ab"), 1<<19)
		receive := func(name string, from net.Conn) {
			got := make([]byte, len(text))
			if n, err := io.ReadFull(from, got); err != nil || !bytes.Equal(got, text) {
				t.Errorf("the %s got %d of %d bytes, error %v", name, n, len(text), err)
			}
		}
		var copies sync.WaitGroup
		copies.Go(func() { _, _ = server.Write(text) })
		copies.Go(func() { receive("server", server) })
		if _, err := client.Write(text); err != nil {
			t.Fatal(err)
		}
		receive("client", client)
		copies.Wait()
	})
}

// The server does not read, but sends a message before it ends. Only Unix sockets
// guarantee its delivery.
func TestRelay_DeliversMessageOfServerThatDoesNotRead(t *testing.T) {
	for name, w := range map[string]way{"loop": {"unix", false, false}, "goroutines": {"unix", true, false}} {
		t.Run(name, func(t *testing.T) {
			client, server, done := w.start(t, new(Relay))
			if err := server.(*net.UnixConn).CloseRead(); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Write(make([]byte, 16<<20)); err != nil { // none of it delivered
				t.Fatal(err)
			}
			if _, err := server.Write([]byte("the reason")); err != nil {
				t.Fatal(err)
			}
			server.Close()
			if got, err := io.ReadAll(client); err != nil || string(got) != "the reason" {
				t.Errorf("the client got %q, error %v", got, err)
			}
			client.Close()
			<-done
		})
	}
}

// The client's time to close begins once it has received everything. The amounts are such that
// the last bytes of some sessions are held by the Relay.
func TestRelay_DeliversEverythingToSlowClient(t *testing.T) {
	inEachWayOnTime(t, func(t *testing.T, w way) {
		if w.network == "tcp" { // the system holds all of it
			return
		}
		var clients []net.Conn
		for n := range 20 {
			client, server, _ := w.start(t, new(Relay))
			clients = append(clients, client)
			go func() {
				_, _ = server.Write(make([]byte, n<<15))
				server.Close()
			}()
		}
		time.Sleep(linger + linger/2)
		for n, client := range clients {
			if got, err := io.ReadAll(client); err != nil || len(got) != n<<15 {
				t.Errorf("the client got %d of %d bytes, error %v", len(got), n<<15, err)
			}
			client.Close()
		}
	})
}

func TestRelay_BoundsMemoryForClientThatDoesNotRead(t *testing.T) {
	inEachWay(t, func(t *testing.T, w way) {
		r := new(Relay)
		_, server, _ := w.start(t, r)
		const n = 64 << 20
		go server.Write(make([]byte, n))
		awaitStandstill(r)
		if _, sent := r.Bytes(); sent == n {
			t.Errorf("the Relay and the system hold %d bytes", sent)
		}
	})
}

func TestRelay_CloseEndsAtOnce(t *testing.T) {
	inEachWay(t, func(t *testing.T, w way) {
		r := new(Relay)
		_, server, done := w.start(t, r)
		go flood(server)
		awaitStandstill(r)
		r.Close()
		<-done
	})
}

func TestRelay_CanBeClosedBeforeRun(t *testing.T) {
	inEachWay(t, func(t *testing.T, w way) {
		r := new(Relay)
		r.Client, _ = w.connect(t)
		r.Server, _ = w.connect(t)
		r.Close()
		r.Run()
	})
}

func TestRelay_CanBeStoppedBeforeRun(t *testing.T) {
	inEachWayOnTime(t, func(t *testing.T, w way) {
		failure := &Error{Code: "57P01", Message: "the end"}
		r := &Relay{FromServer: []byte("Z\x00\x00\x00\x05I")}
		r.Stop(failure)
		client, _, _ := w.start(t, r)
		if got, err := io.ReadAll(client); err != nil || !bytes.HasSuffix(got, failure.Encode()) {
			t.Errorf("the client is told %q, error %v", got, err)
		}
	})
}

// TestRelay_FreesResources disconnects clients and servers in every way and at any
// time. It counts goroutines and file descriptors before and after.
func TestRelay_FreesResources(t *testing.T) {
	before, open := runtime.NumGoroutine(), openFiles()
	var sessions sync.WaitGroup
	slots := make(chan struct{}, 50)
	for i := range 1000 {
		slots <- struct{}{}
		r, w := new(Relay), way{network: "tcp"}
		if i%10 == 0 {
			w = ways[i/10%len(ways)]
		}
		client, server, done := w.start(t, r)
		sessions.Go(func() {
			defer func() { <-slots }()
			if i%2 == 0 {
				go client.Write(make([]byte, i%5*(1<<17)+1))
			}
			if i%3 == 0 {
				go server.Write(make([]byte, i%4*(1<<17)+1))
			}
			switch i % 7 {
			case 0:
				server.Close()
			case 1:
				r.Close()
				<-done
			case 2:
				go r.Stop(&Error{})
				r.Stop(&Error{})
				client.Close()
				<-done
			case 3:
				_ = client.CloseWrite()
			case 4:
				if tcp, ok := client.(*net.TCPConn); ok {
					_ = tcp.SetLinger(0) // resets the connection
				}
			case 5:
				go server.Close()
			}
			client.Close()
			server.Close()
			<-done
			r.Stop(&Error{})
			r.Close()
		})
	}
	sessions.Wait()
	await(t, func() bool { return runtime.NumGoroutine() <= before && openFiles() <= open })
}

// await waits until a condition is met.
func await(t *testing.T, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the condition is not met after a minute")
		}
	}
}

// usePoller makes the runtime open its own file descriptors, which it does at the first use
// of the network.
var usePoller = sync.OnceFunc(func() {
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
	}
})

// openFiles returns the number of open file descriptors, or 0 if it is unknown.
func openFiles() int {
	usePoller()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
