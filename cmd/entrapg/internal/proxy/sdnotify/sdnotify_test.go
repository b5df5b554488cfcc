package sdnotify

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestNotifier_SendsStatesToSocket(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no systemd")
	}
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sockets := []string{filepath.Join(dir, "notify")}
	if runtime.GOOS == "linux" {
		sockets = append(sockets, "@"+filepath.Base(dir))
	}
	for _, socket := range sockets {
		systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer systemd.Close()
		t.Setenv("NOTIFY_SOCKET", socket)
		n := FromEnvironment()
		if value, set := os.LookupEnv("NOTIFY_SOCKET"); set {
			t.Errorf("%s: NOTIFY_SOCKET is left as %q", socket, value)
		}
		for _, state := range []string{Ready, Stopping} {
			if err := n.Send(state); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 100)
			length, err := systemd.Read(got)
			if err != nil || string(got[:length]) != state {
				t.Errorf("%s: got %q, %v; want %q", socket, got[:length], err, state)
			}
		}
	}
}

func TestNotifier_WithoutSystemdSendsNothing(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := FromEnvironment().Send(Ready); err != nil {
		t.Error(err)
	}
}

func TestNotifier_ReportsUnusableSocket(t *testing.T) {
	for _, socket := range []string{"vsock:2:1234", filepath.Join(t.TempDir(), "missing")} {
		if err := (Notifier{socket}).Send(Ready); err == nil {
			t.Errorf("%s: no error", socket)
		}
	}
}
