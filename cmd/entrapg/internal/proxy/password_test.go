package proxy

import (
	"os"
	"testing"
)

// The proxy runs programs, such as az, that inherit its environment.
func TestPassword_IsNotInheritedByChildProcesses(t *testing.T) {
	t.Setenv(passwordVariable, "secret")
	p, err := findPassword("")
	if err != nil || p.value != "secret" {
		t.Errorf("got %+v, %v", p, err)
	}
	if value, set := os.LookupEnv(passwordVariable); set {
		t.Errorf("%s is left as %q", passwordVariable, value)
	}
}
