package emulator

import (
	"fmt"
	"strings"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
)

// A syntax is that of a shell.
type syntax int

const (
	posix syntax = iota
	powershell
)

// syntaxFor returns the syntax of the usual shell of a system. MSYSTEM is set in
// Git Bash and other shells of MSYS2.
func syntaxFor(goos string, getenv func(string) string) syntax {
	if goos == "windows" && getenv("MSYSTEM") == "" {
		return powershell
	}
	return posix
}

// quote quotes an argument or a value.
func (s syntax) quote(text string) string {
	if s == powershell {
		return quote.PowerShell(text)
	}
	return quote.Shell(text)
}

// lines returns the commands that set variables.
func (s syntax) lines(all []variable) string {
	var b strings.Builder
	var missing []string
	for _, v := range all {
		switch {
		case v.value == "":
			missing = append(missing, v.name)
		case s == powershell:
			fmt.Fprintf(&b, "$env:%s = %s\n", v.name, s.quote(v.value))
		default:
			fmt.Fprintf(&b, "export %s=%s\n", v.name, s.quote(v.value))
		}
	}
	switch {
	case len(missing) == 0:
	case s == powershell:
		fmt.Fprintf(&b, "Remove-Item Env:%s -ErrorAction Ignore\n", strings.Join(missing, ", Env:"))
	default:
		fmt.Fprintf(&b, "unset %s\n", strings.Join(missing, " "))
	}
	return b.String()
}
