//go:build !windows

package listener

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxPath is the longest path of a Unix socket: the size of sun_path without the
// terminating NUL.
const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// socketNames ends the errors about a path that may have been meant as that of a socket.
const socketNames = "the path of a socket itself must end in " + socketPrefix + "PORT or .sock"

// A socket is a Unix socket in the file system. Close removes its file.
type socket struct {
	*net.UnixListener
	path  string
	file  fs.FileInfo // of path
	close func() error
}

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if path[0] == '@' {
		l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
		return l, explain(err)
	}
	unlock, err := lock(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// On Linux, the file gets the mode of the unbound socket, so that others can never
	// connect. Other systems ignore it.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { syscall.Fchmod(int(fd), 0o600) })
	}}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, explainPath(path, err)
	}
	s := &socket{UnixListener: l.(*net.UnixListener), path: path}
	s.SetUnlinkOnClose(false)
	s.close = sync.OnceValue(s.remove)
	// Chmod follows a symbolic link, which others could put here in their directory.
	if s.file, err = os.Lstat(path); err == nil && s.file.Mode() != fs.ModeSocket|0o600 {
		if s.file.Mode().Type() != fs.ModeSocket {
			err = errors.New("another program has replaced the socket; choose a directory that others cannot write to")
		} else {
			err = os.Chmod(path, 0o600)
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close removes the file and closes the socket.
func (s *socket) Close() error { return s.close() }

// remove removes the file unless another program has replaced it.
func (s *socket) remove() error {
	if unlock, err := lock(filepath.Dir(s.path)); err == nil {
		defer unlock()
	}
	if file, err := os.Lstat(s.path); err == nil && (s.file == nil || os.SameFile(file, s.file)) {
		os.Remove(s.path)
	}
	return s.UnixListener.Close()
}

// lock keeps other programs that use this package from replacing the same stale
// socket at the same time.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the directory %q does not exist; create it with access for the users who may connect; "+
			socketNames, dir)
	case err != nil:
		return nil, err
	}
	if info, err := d.Stat(); err != nil || !info.IsDir() {
		d.Close()
		return nil, fmt.Errorf("%q is not a directory; "+socketNames, dir)
	}
	// Other users can hold the lock of a shared directory forever, and some file
	// systems do not support locks, so the wait is short and the lock not required.
	for range 20 {
		if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != syscall.EWOULDBLOCK &&
			err != syscall.EINTR {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return func() { d.Close() }, nil
}

// removeStale removes a socket on which no program listens.
func removeStale(path string) error {
	file, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case file.Mode().Type() != fs.ModeSocket:
		return errors.New("the file exists and is not a socket; choose another path")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return errors.New("another program listens on the socket; stop it, or choose another path")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the socket of a program that has ended: %w", err)
	}
	return nil
}

func explainPath(path string, err error) error {
	var call *net.OpError
	if errors.As(err, &call) {
		err = call.Err
	}
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%s; the directory %q must be writable",
			strings.TrimPrefix(err.Error(), "bind: "), filepath.Dir(path))
	}
	return err
}
