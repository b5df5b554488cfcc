package dsn

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/joho/godotenv"
)

// loaded are the .env files whose variables this process has.
var loaded []string

// UnsetDirective begins a line of a .env file, followed by variables to unset. Other
// programs read it as a comment: the format of .env files cannot unset a variable, and some
// programs reject an empty one.
const UnsetDirective = "# entrapg: unset "

// loadEnv sets and unsets the environment variables of a .env file.
func loadEnv(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--env-file: %w", err)
	}
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(content, []byte("\xff\xfe")) || bytes.HasPrefix(content, []byte("\xfe\xff")) ||
		bytes.IndexByte(content, 0) >= 0 {
		return fmt.Errorf("--env-file: %s is encoded in UTF-16; save it as UTF-8", path)
	}
	variables, err := parseEnv(content)
	if err != nil {
		// The parser's errors quote the file, which contains secrets.
		return fmt.Errorf("--env-file: %s: line %d is not NAME=VALUE", path, badLine(content))
	}
	for line := range strings.Lines(string(content)) {
		if names, ok := strings.CutPrefix(line, UnsetDirective); ok {
			for name := range strings.FieldsSeq(names) {
				os.Unsetenv(name)
			}
		}
	}
	for name, value := range variables {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("--env-file: %s: %w", path, err)
		}
	}
	loaded = append(loaded, path)
	return nil
}

func parseEnv(content []byte) (map[string]string, error) {
	variables, err := godotenv.UnmarshalBytes(content)
	for name := range variables {
		if name == "" || strings.ContainsAny(name, " \t") { // which godotenv accepts
			err = errors.New("not a name")
		}
	}
	return variables, err
}

// badLine returns the number of the line that follows the last valid one.
func badLine(content []byte) int {
	n, bad, start, end := 0, 1, 0, 0
	for line := range bytes.Lines(content) {
		n, end = n+1, end+len(line)
		if _, err := parseEnv(content[start:end]); err == nil { // values may have several lines
			bad, start = n+1, end
		}
	}
	return bad
}
