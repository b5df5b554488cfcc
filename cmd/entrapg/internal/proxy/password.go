package proxy

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

// passwordVariable sets the password of the proxy.
const passwordVariable = "ENTRAPG_PROXY_PASSWORD"

// A password is the password of clients over TCP. The zero value means no password.
type password struct {
	value string
	from  string // the setting; empty if the password is generated
}

// findPassword returns the password that ENTRAPG_PROXY_PASSWORD or a file sets. It
// unsets the variable, so that child processes, such as az, do not inherit it.
func findPassword(file string) (password, error) {
	value, set := os.LookupEnv(passwordVariable)
	os.Unsetenv(passwordVariable)
	p := password{value, passwordVariable}
	source := sourceOf("password-file", file)
	switch {
	case set && file != "":
		return p, command.UsageError(passwordVariable + " and " + source + " both set the password; remove one")
	case file != "":
		content, err := os.ReadFile(file)
		if err != nil {
			return p, fmt.Errorf("%s: %w", source, err)
		}
		value = strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
		p = password{value, source + " " + file}
	case !set:
		return password{}, nil
	}
	switch {
	case value == "":
		return p, command.UsageError(p.from + ": the password is empty")
	case strings.Contains(value, "\x00"):
		return p, command.UsageError(p.from + ": the password must not contain a zero byte")
	}
	return p, nil
}

// generatePassword returns a new random password.
func generatePassword() password { return password{value: rand.Text()} }
