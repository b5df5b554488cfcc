package execute

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/signaltest"
)

// TestMain lets this test binary be the parent of a child that runChild runs.
func TestMain(m *testing.M) {
	if os.Getenv("ENTRAPG_TEST_AS_PARENT") != "" {
		code := command.ExitCode(0)
		errors.As(runChild(os.Args[1], os.Args[1:], os.Environ()), &code)
		os.Exit(int(code))
	}
	signaltest.Restore()
	os.Exit(m.Run())
}

func TestRunChild_ReturnsExitCode(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	for script, want := range map[string]command.ExitCode{"exit 0": 0, "exit 7": 7, "exit $CODE": 9, "kill -TERM $$": 143, "kill -KILL $$": 137} {
		err := runChild(sh, []string{"sh", "-c", script}, []string{"CODE=9"})
		var code command.ExitCode
		if errors.As(err, &code); code != want || (err == nil) != (want == 0) {
			t.Errorf("%s: %v, want %d", script, err, want)
		}
	}
	if err := runChild("/nowhere/sh", []string{"sh"}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing command: %v", err)
	}
}
