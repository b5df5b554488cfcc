package emulator

import (
	"strings"
)

// A variable is one of the environment. It must be unset if its value is empty.
type variable struct{ name, value string }

func variables(environ []string) []variable {
	var all []variable
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		all = append(all, variable{name, value})
	}
	return all
}
