package pgwire

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The Relay stops reading a client that requests key updates and does not read the
// answers. Once the client has read them, all of its bytes arrive.
func TestPair_BoundsAnswersToKeyUpdates(t *testing.T) {
	r, sender, far, done := startKeyed(t)
	const n = 10_000 // requests; their answers have 270 kB
	flood := make([]byte, 0, n*64)
	for range n {
		flood = sender.record(flood, 22, []byte{24, 0, 0, 1, 1})
		sender.update()
		flood = sender.record(flood, 23, []byte("x"))
	}
	go far.Write(flood)
	answered := func() bool {
		received, _ := r.Bytes()
		return received == n
	}
	paused := func() bool {
		paused := make(chan bool)
		p := r.mover.(*pair)
		p.loop.post(func() { paused <- p.client.watched&unix.EPOLLIN == 0 && !p.server.socket.pending() })
		return <-paused
	}
	await(t, func() bool { return paused() || answered() })
	if answered() {
		t.Error("all requests were answered, although the client does not read")
	}
	go io.Copy(io.Discard, far)
	await(t, answered)
	r.Close()
	<-done
}

// An invalid record ends only its own session.
func TestPair_EndsAtInvalidTLS(t *testing.T) {
	client, server, _ := way{network: "tcp"}.start(t, new(Relay))
	for name, flood := range map[string]func(k *keyUpdater) []byte{
		"no TLS":                 func(*keyUpdater) []byte { return []byte("no TLS") },
		"no TLS, much":           func(*keyUpdater) []byte { return make([]byte, 1<<20) },
		"plaintext alert":        func(*keyUpdater) []byte { return []byte{21, 3, 3, 0, 2, 2, 40} },
		"too long a record":      func(*keyUpdater) []byte { return []byte{23, 3, 3, 255, 255} },
		"another key":            func(k *keyUpdater) []byte { k.update(); return k.record(nil, 23, []byte("x")) },
		"an unknown type":        func(k *keyUpdater) []byte { return k.record(nil, 99, []byte("x")) },
		"a handshake message":    func(k *keyUpdater) []byte { return k.record(nil, 22, []byte{1, 0, 0, 0}) },
		"a long message":         func(k *keyUpdater) []byte { return k.record(nil, 22, []byte{24, 255, 255, 255}) },
		"half a message, data":   func(k *keyUpdater) []byte { return k.record(k.record(nil, 22, []byte{24, 0}), 23, []byte("x")) },
		"an alert":               func(k *keyUpdater) []byte { return k.record(nil, 21, []byte{2, 40}) },
		"empty records":          func(k *keyUpdater) []byte { return k.repeat(23, nil) },
		"warnings":               func(k *keyUpdater) []byte { return k.repeat(21, []byte{1, 90}) },
		"requests for new keys":  func(k *keyUpdater) []byte { return k.repeat(22, []byte{24, 0, 0, 1, 1}) },
		"changes of cipher spec": func(*keyUpdater) []byte { return bytes.Repeat([]byte{20, 3, 3, 0, 1, 1}, 100) },
	} {
		t.Run(name, func(t *testing.T) {
			_, sender, far, done := startKeyed(t)
			go far.Write(flood(sender))
			go io.Copy(io.Discard, far)
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Error("the session continues")
			}
			exchange(t, client, server, 1)
		})
	}
}

// startKeyed runs a Relay on a loop. sender encrypts for the client, and far is the
// client's connection.
func startKeyed(t *testing.T) (r *Relay, sender *keyUpdater, far net.Conn, done chan struct{}) {
	t.Helper()
	r, done = new(Relay), make(chan struct{})
	near, far := connPair(t, "unix") // small buffers in the system
	near.SetDeadline(time.Time{})
	serving := tls.Server(NewConn(near), tlsConfig(t))
	var secrets bytes.Buffer
	go serving.Handshake()
	client := tls.Client(far, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &secrets})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if client.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("this processor prefers another cipher")
	}
	if err := serving.Handshake(); err != nil {
		t.Fatal(err)
	}
	r.Client = serving
	var server net.Conn
	r.Server, server = way{network: "tcp"}.connect(t)
	go func() {
		_, _ = io.Copy(io.Discard, server)
		server.Close()
	}()
	if r.mover = newPair(r); r.mover == nil {
		t.Fatal("the Relay is not on a loop")
	}
	go func() {
		defer close(done)
		r.mover.run()
	}()
	t.Cleanup(func() {
		r.Close()
		<-done
	})
	return r, newKeyUpdater(t, secrets.String()), far, done
}

// A keyUpdater encrypts records of TLS 1.3 with TLS_AES_128_GCM_SHA256.
type keyUpdater struct {
	t      *testing.T
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	n      uint64
}

// newKeyUpdater uses a client's secret from a key log.
func newKeyUpdater(t *testing.T, keyLog string) *keyUpdater {
	t.Helper()
	_, line, _ := strings.Cut(keyLog, "CLIENT_TRAFFIC_SECRET_0 ")
	secret, err := hex.DecodeString(strings.Fields(line)[1])
	if err != nil {
		t.Fatal(err)
	}
	k := &keyUpdater{t: t}
	k.use(secret)
	return k
}

func (k *keyUpdater) expand(label string, n int) []byte {
	label = "tls13 " + label
	info := append(binary.BigEndian.AppendUint16(nil, uint16(n)), byte(len(label)))
	key, err := hkdf.Expand(sha256.New, k.secret, string(info)+label+"\x00", n)
	if err != nil {
		k.t.Fatal(err)
	}
	return key
}

func (k *keyUpdater) use(secret []byte) {
	k.secret, k.n = secret, 0
	block, err := aes.NewCipher(k.expand("key", 16))
	if err != nil {
		k.t.Fatal(err)
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		k.t.Fatal(err)
	}
	k.iv = k.expand("iv", 12)
}

// update switches to the next keys.
func (k *keyUpdater) update() { k.use(k.expand("traffic upd", sha256.Size)) }

// record appends a record.
func (k *keyUpdater) record(b []byte, kind byte, content []byte) []byte {
	nonce := bytes.Clone(k.iv)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^k.n)
	k.n++
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(content)+1+k.aead.Overhead()))
	return k.aead.Seal(append(b, head...), nonce, append(bytes.Clone(content), kind), head)
}

// repeat returns many records with the same content.
func (k *keyUpdater) repeat(kind byte, content []byte) (b []byte) {
	for range 100 {
		b = k.record(b, kind, content)
		if kind == 22 {
			k.update()
		}
	}
	return b
}

func TestPair_EndsIfEpollFails(t *testing.T) {
	w, r := way{network: "tcp"}, new(Relay)
	r.Client, _ = w.connect(t)
	r.Server, _ = w.connect(t)
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.end()
	l.sessions = 1
	unix.Close(l.epoll)
	l.epoll = -1
	p := &pair{relay: r, loop: l, done: make(chan struct{})}
	p.client, p.server = newEndpoint(p, r.Client, r.countReceived), newEndpoint(p, r.Server, r.countSent)
	p.client.peer, p.server.peer = p.server, p.client
	p.begin()
	select {
	case <-p.done:
	default:
		t.Error("the session continues, but its connections are not watched")
	}
}

// With any number of free file descriptors, a session starts, and no descriptor leaks.
func TestRelay_WithoutFreeFileDescriptors(t *testing.T) {
	open := openFiles()
	w := way{network: "tcp"}
	for free := range 6 {
		r, done := new(Relay), make(chan struct{})
		var client, server net.Conn
		r.Client, client = w.connect(t)
		r.Server, server = w.connect(t)
		go func() {
			defer close(done)
			restore := limitFiles(t, free)
			defer restore()
			r.Run()
		}()
		exchange(t, client, server, 2)
		r.mu.Lock()
		_, onLoop := r.mover.(*pair)
		r.mu.Unlock()
		if !onLoop && free > 4 { // with fewer, others may have been closed since they were counted
			t.Errorf("not on a loop, although %d file descriptors were free", free)
		}
		client.Close()
		server.Close()
		<-done
	}
	await(t, func() bool { return openFiles() <= open })
}

// limitFiles leaves n file descriptors free, until restore is called.
func limitFiles(t *testing.T, n int) (restore func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	for limit.Cur = 0; n >= 0; limit.Cur++ {
		if _, err := os.Readlink("/proc/self/fd/" + strconv.FormatUint(limit.Cur, 10)); err != nil {
			n--
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) }
}
