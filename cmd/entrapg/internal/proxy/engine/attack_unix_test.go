//go:build linux || darwin

package engine_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
)

// TestAttack_LeavesFilesForSessions attacks a process that can open only few files.
func TestAttack_LeavesFilesForSessions(t *testing.T) {
	few := uint64(openDescriptors(t) + 400)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	})
	s := server(t)
	u := to(t, s, newIdentity(t, s))
	lower := limit
	lower.Cur = few
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lower); err != nil {
		t.Fatal(err)
	}
	p := start(t, &engine.Server{Upstream: u, Password: password})
	survive(t, p, "stall in SCRAM", "")
	if log := p.log.String(); strings.Contains(log, "accept failed") {
		t.Error("the attack used up the files")
	}
}
