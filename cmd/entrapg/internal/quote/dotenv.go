package quote

import (
	"strings"
)

// DotEnv quotes a value for a .env file. It uses single quotes, within which no character is
// special, or double quotes if the value contains a single quote.
func DotEnv(value string) string {
	if !strings.Contains(value, "'") {
		return "'" + value + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(value) + `"`
}
