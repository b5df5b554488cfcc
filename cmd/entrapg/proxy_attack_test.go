//go:build linux

package main

import (
	"crypto/rand"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestProxy_OtherUserCannotOpenSocket connects as another user of the machine.
func TestProxy_OtherUserCannotOpenSocket(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	_, env := identityWith(t, azureServer(t), "proxy-stranger", true)
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o777); err != nil { // only the socket's own mode protects it
		t.Fatal(err)
	}
	startProxy(t, env, "--listen", dir)
	psql := exec.CommandContext(t.Context(), installed(t, "psql"), "-XAtc", "select session_user", "host="+dir+" dbname=postgres user=anyone")
	psql.Env, psql.Dir = []string{"LC_ALL=C"}, "/"
	psql.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := psql.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("%v\n%s", err, out)
	}
	psql = exec.CommandContext(t.Context(), installed(t, "psql"), "-XAtc", "select session_user", "host="+dir+" dbname=postgres user=anyone")
	if out, err := psql.CombinedOutput(); err != nil || string(out) != "proxy-stranger\n" {
		t.Errorf("the proxy's own user: %v\n%s", err, out)
	}
}

// TestProxy_FreesResourcesOfLostClients opens 1,000 connections that end in every stage of a login.
func TestProxy_FreesResourcesOfLostClients(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "proxy-vanish", true)
	p := startProxy(t, env, "--listen", "127.0.0.1:0")
	if got := ask(t, p.connect(t, ""), "select session_user"); got != "proxy-vanish" {
		t.Fatalf("got %q", got)
	}
	open := func() int {
		fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "fd"))
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	before := open()
	startup := []byte("\x00\x00\x00\x00\x00\x03\x00\x00user\x00anyone\x00database\x00postgres\x00\x00")
	binary.BigEndian.PutUint32(startup, uint32(len(startup)))
	sslRequest := []byte{0, 0, 0, 8, 4, 210, 22, 47}
	garbage := make([]byte, 100)
	rand.Read(garbage)
	stages := [][]byte{
		nil,
		sslRequest,
		startup[:3],
		startup[:20],
		startup,
		append(startup, garbage...),
		garbage,
		append(sslRequest, startup...),
	}
	slots := make(chan struct{}, 50)
	var all sync.WaitGroup
	for i := range 1000 {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			conn, err := net.Dial("tcp", p.addr(0))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.Write(stages[i%len(stages)])
			if i%3 == 0 {
				conn.(*net.TCPConn).SetLinger(0) // reset
			}
		})
	}
	all.Wait()
	await(t, func() bool { return open() <= before }, p.log.String)
	if got := ask(t, p.connect(t, ""), "select session_user"); got != "proxy-vanish" {
		t.Errorf("got %q", got)
	}
}
