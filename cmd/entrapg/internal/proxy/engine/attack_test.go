package engine_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
)

// attackers are the ways in which clients without the proxy's password try to block
// other clients.
var attackers = map[string]func(net.Conn){
	"say nothing": waitForEnd,
	"trickle a startup message": func(conn net.Conn) {
		for _, b := range startupOf("user", strings.Repeat("x", 5000)) {
			if _, err := conn.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	},
	"stall in TLS": func(conn net.Conn) {
		conn.Write([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"))
		io.ReadFull(conn, make([]byte, 1))
		conn.Write([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
		waitForEnd(conn)
	},
	"stall in a long handshake of TLS": func(conn net.Conn) {
		conn.Write([]byte("\x16\x03\x01\x3f\xf0\x01\x00\xff\xff\x03\x03" + strings.Repeat("x", 0x3ff0-6)))
		waitForEnd(conn)
	},
	"stall after TLS": func(conn net.Conn) {
		conn.Write([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"))
		io.ReadFull(conn, make([]byte, 1))
		secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		secured.Handshake()
		waitForEnd(conn)
	},
	"stall in SCRAM": func(conn net.Conn) {
		conn.Write(startupOf("user", "eve"))
		conn.Write(message('p', "SCRAM-SHA-256\x00\x00\x00\x00\x10n,,n=,r=abcdefgh"))
		waitForEnd(conn)
	},
	"send wrong passwords and stay": func(conn net.Conn) {
		conn.Write(startupOf("user", "eve"))
		conn.Write(message('p', "SCRAM-SHA-256\x00\x00\x00\x00\x10n,,n=,r=abcdefgh"))
		conn.Write(message('p', "c=biws,r=abcdefgh,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="))
		waitForEnd(conn)
	},
	"stall in a cancel request": func(conn net.Conn) {
		conn.Write([]byte("\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01"))
		waitForEnd(conn)
	},
	"send cancel requests": func(conn net.Conn) {
		conn.Write([]byte("\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x01"))
		waitForEnd(conn)
	},
}

func waitForEnd(conn net.Conn) { io.Copy(io.Discard, conn) }

// message returns the encoding of a message.
func message(kind byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body))), body...)
}

// startupOf returns a startup message of protocol 3.0.
func startupOf(parameters ...string) []byte {
	b := append(make([]byte, 4), 0, 3, 0, 0)
	for _, p := range parameters {
		b = append(append(b, p...), 0)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

// attackVariable makes the test binary attack. Its value contains the attacker's name, the
// number of connections, and the proxy's address.
const attackVariable = "ENTRAPG_TEST_ATTACK"

// runAttackers holds connections open until standard input ends. It replaces each
// one that is closed, and prints a line when all are open.
func runAttackers(attack string) {
	words := strings.Split(attack, "=")
	attacker, address := attackers[words[0]], words[2]
	crowd, err := strconv.Atoi(words[1])
	if err != nil {
		panic(err)
	}
	var arrived sync.WaitGroup
	arrived.Add(crowd)
	for range crowd {
		go func() {
			for first := true; ; first = false {
				conn, err := net.Dial("tcp", address)
				if first {
					arrived.Done()
				}
				if err != nil {
					continue
				}
				attacker(conn)
				conn.Close()
				time.Sleep(300 * time.Millisecond) // leaves processor time for the tests
			}
		}()
	}
	arrived.Wait()
	fmt.Println("attacking")
	io.Copy(io.Discard, os.Stdin)
}

// attack starts attackers in a separate process, and returns when the crowd has
// connected. The returned function stops them.
func attack(t *testing.T, name string, crowd int, address string) (stop func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s=%d=%s", attackVariable, name, crowd, address))
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(stop)
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return stop
}

// TestAttack_ClientsWithPasswordLogIn attacks a process that can open only few files, so that
// few connections suffice.
func TestAttack_ClientsWithPasswordLogIn(t *testing.T) {
	s := server(t)
	u := to(t, s, newIdentity(t, s))
	config, caFile := newTLS(t)
	files := openDescriptors(t) + 400
	if !limitFiles(t, files) {
		files = 8 * minPending
	}
	for name := range attackers {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			server := &engine.Server{Upstream: u, Password: password, Limit: engine.NewLimit(4)}
			var settings string
			if strings.Contains(name, "TLS") {
				server.TLS, settings = config, "sslmode=require sslrootcert="+caFile
			}
			p := start(t, server)
			survive(t, p, name, settings, files/8)
			if log := p.log.String(); strings.Contains(log, "accept failed") {
				t.Error("the attack used up the files")
			}
		})
	}
}

// minPending is the number of pending clients if the number of files does not matter.
const minPending = 1024

func TestAttack_FillsPendingClients(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s)), Password: password})
	survive(t, p, "stall in SCRAM", "", minPending)
}

// survive logs in and cancels a query during an attack. The attacker does not have the
// password, and holds more connections than can be pending. A login may fail, but a retry must
// succeed.
func survive(t *testing.T, p *running, attacker, settings string, pending int) {
	t.Helper()
	conn := p.connect(t, settings)
	goroutines, descriptors, memory := runtime.NumGoroutine(), openDescriptors(t), memoryInUse()
	stop := attack(t, attacker, pending+pending/6, p.addr.String())

	await(t, "a login of pgx during the attack", func() bool {
		second, err := p.tryConnect(t, settings)
		if err != nil {
			return false
		}
		second.Close(t.Context())
		return true
	})
	await(t, "a login of psql during the attack", func() bool {
		out, err := p.psql(t, settings, "-c", "select 'in'").Output()
		return err == nil && string(out) == "in\n"
	})
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.WithoutCancel(t.Context()), "select pg_sleep(600)")
		ended <- err
	}()
	await(t, "the cancellation", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_ = conn.PgConn().CancelRequest(ctx)
		select {
		case err := <-ended:
			if response, ok := asPgError(err); !ok || response.Code != "57014" {
				t.Errorf("the query ends with %v", err)
			}
			return true
		default:
			return false
		}
	})

	open, more := p.Stats().Open, memoryInUse()-memory
	t.Logf("%+v", p.Stats())
	t.Logf("%d connections and %d KiB during the attack, %d bytes of log", open, more>>10, len(p.log.String()))
	if most := 2*pending + 50; open > int64(most) || runtime.NumGoroutine() > goroutines+most {
		t.Errorf("%d connections are open, and %d goroutines run", open, runtime.NumGoroutine())
	}
	if more > 128<<20 {
		t.Errorf("%d KiB of memory are in use", more>>10)
	}
	stop()
	await(t, "goroutines and descriptors to be as before", func() bool {
		return p.Stats().Open == 1 && runtime.NumGoroutine() <= goroutines && openDescriptors(t) <= descriptors
	})
	if log := p.log.String(); len(log) > 32<<10 {
		t.Errorf("the log has %d bytes", len(log))
	}
	conn.Close(t.Context())
}

// memoryInUse returns the size of the process's heap and stacks.
func memoryInUse() int64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapInuse + stats.StackInuse)
}
