package sdnotify

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"
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

func TestNotifier_WatchdogIsOfThisProcess(t *testing.T) {
	own, other := strconv.Itoa(os.Getpid()), strconv.Itoa(os.Getppid())
	for _, test := range []struct {
		socket, usec, pid string
		want              time.Duration
	}{
		{"/run/notify", "30000000", own, 15 * time.Second},
		{"/run/notify", "30000000", "", 0}, // set, but empty
		{"/run/notify", "30000000", other, 0},
		{"/run/notify", "0", own, 0},
		{"/run/notify", "-5", own, 0},
		{"/run/notify", "soon", own, 0},
		{"/run/notify", "", own, 0},
		{"", "30000000", own, 0},
	} {
		t.Setenv("NOTIFY_SOCKET", test.socket)
		t.Setenv("WATCHDOG_USEC", test.usec)
		t.Setenv("WATCHDOG_PID", test.pid)
		if got := FromEnvironment().Watchdog(); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
		if value, set := os.LookupEnv("WATCHDOG_USEC"); set {
			t.Errorf("WATCHDOG_USEC is left as %q", value)
		}
	}
	t.Setenv("NOTIFY_SOCKET", "/run/notify")
	t.Setenv("WATCHDOG_USEC", "2000000")
	os.Unsetenv("WATCHDOG_PID")
	if got := FromEnvironment().Watchdog(); got != time.Second {
		t.Errorf("without WATCHDOG_PID: %s", got)
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
		if err := (Notifier{socket: socket}).Send(Ready); err == nil {
			t.Errorf("%s: no error", socket)
		}
	}
}

func TestNotifier_DoesNotWaitForSocketThatIsNotRead(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere, a full queue is an error at once")
	}
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	full := make(chan error, 1)
	go func() {
		for {
			if err := (Notifier{socket: socket}).Send(Alive); err != nil {
				full <- err
				return
			}
		}
	}()
	select {
	case err := <-full:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("Send waits for the reader")
	}
}
