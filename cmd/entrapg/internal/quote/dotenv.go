package quote

import (
	"strings"
)

// DotEnv quotes a value for a .env file. Nothing within single quotes has a
// meaning; a value that contains them is in double quotes.
func DotEnv(value string) string {
	if !strings.Contains(value, "'") {
		return "'" + value + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(value) + `"`
}
