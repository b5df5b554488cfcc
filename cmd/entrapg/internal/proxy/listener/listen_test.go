package listener

import (
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// open parses an address and listens on it.
func open(t *testing.T, text string) ([]net.Listener, error) {
	t.Helper()
	a, err := Parse(text, 5432)
	if err != nil {
		t.Fatal(err)
	}
	ls, err := Listen(t.Context(), a)
	for _, l := range ls {
		t.Cleanup(func() { l.Close() })
	}
	return ls, err
}

func TestListen_LocalhostHasSamePortOnBothFamilies(t *testing.T) {
	ls, err := open(t, "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	if probe, err := net.Listen("tcp", "[::1]:0"); err == nil {
		probe.Close()
		if len(ls) != 2 {
			t.Fatalf("%d listeners, want 2", len(ls))
		}
	}
	for _, l := range ls {
		addr := l.Addr().(*net.TCPAddr)
		if !addr.IP.IsLoopback() || addr.Port != ls[0].Addr().(*net.TCPAddr).Port {
			t.Errorf("%s beside %s", addr, ls[0].Addr())
		}
	}
}

// With many ports in use on one family, the system soon chooses one of them for the other.
func TestListen_LocalhostAvoidsPortsInUse(t *testing.T) {
	for range 1000 {
		l, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			t.Skip("the machine has no IPv6, or few file descriptors")
		}
		defer l.Close()
	}
	for range 100 {
		ls, err := Listen(t.Context(), Address{Host: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range ls {
			l.Close()
		}
	}
}

func TestListen_ExplainsPortInUse(t *testing.T) {
	ls, err := open(t, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, err = open(t, ls[0].Addr().String())
	if err == nil || !strings.Contains(err.Error(), "choose another port") {
		t.Errorf("got %v", err)
	}
}

// socketDir returns a directory with a short path.
func socketDir(t *testing.T) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("Unix sockets are not supported on Windows")
	}
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestListen_SocketHasMode0600AndIsRemoved(t *testing.T) {
	dir := socketDir(t)
	ls, err := open(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, ".s.PGSQL.5432")
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for range 2 {
		if err := ls[0].Close(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestListen_StaleSocketIsReplaced(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, ".s.PGSQL.5432")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if _, err := open(t, dir); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestListen_NeverReplacesPathInUse(t *testing.T) {
	dir := socketDir(t)
	for name, test := range map[string]struct {
		occupy func(t *testing.T, path string)
		want   string
	}{
		"a live socket": {func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, "another program listens"},
		"a datagram socket": {func(t *testing.T, path string) {
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}, "another program listens"},
		"a file": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a socket"},
		"a symbolic link": {func(t *testing.T, path string) {
			if err := os.Symlink("/nowhere", path); err != nil {
				t.Fatal(err)
			}
		}, "not a socket"},
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".sock")
		test.occupy(t, path)
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, path); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s was replaced", name)
		}
	}
}

func TestListen_CloseLeavesSocketOfAnotherProgram(t *testing.T) {
	dir := socketDir(t)
	ls, err := open(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, ".s.PGSQL.5432")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ls[0].Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestListen_ExplainsMissingDirectory(t *testing.T) {
	dir := socketDir(t)
	missing := filepath.Join(dir, "missing")
	if _, err := open(t, missing); err == nil || !strings.Contains(err.Error(), "the path of a socket itself must end in .s.PGSQL.PORT") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(missing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, missing); err == nil || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("got %v", err)
	}
}

func TestListen_AbstractSocketAcceptsClients(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has abstract sockets")
	}
	name := "@" + filepath.Base(socketDir(t)) + ".sock"
	a, err := Parse(name, 5432)
	if err != nil {
		t.Fatal(err)
	}
	ls, err := Listen(context.Background(), a)
	if err != nil {
		t.Fatal(err)
	}
	defer ls[0].Close()
	conn, err := net.Dial("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := Listen(context.Background(), a); err == nil {
		t.Error("two listeners on one abstract socket")
	}
}
