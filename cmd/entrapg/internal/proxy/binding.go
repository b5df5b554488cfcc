package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/listener"
)

// defaultPort is PostgreSQL's default port.
const defaultPort = 5432

// A binding is an address where the proxy listens for the clients of an upstream.
type binding struct {
	address  listener.Address
	dsn      string
	hasDSN   bool   // of its own; otherwise, dsn is the command's
	from     string // the setting, for errors
	upstream *upstream
}

// listenBindings reads the values of --listen: ADDRESS or ADDRESS=DSN. Lines separate
// several in a value, and commas do if there is no DSN, for the environment
// variable.
func listenBindings(values []string) ([]*binding, error) {
	var bindings []*binding
	from := sourceOf("listen", strings.Join(values, "\n"))
	for _, value := range values {
		items := strings.Split(value, "\n")
		if !strings.Contains(value, "=") {
			items = strings.FieldsFunc(value, func(r rune) bool { return r == '\n' || r == ',' })
		}
		before := len(bindings)
		for _, item := range items {
			if item = strings.TrimSpace(item); item == "" {
				continue
			}
			b, err := parseBinding(item)
			if err != nil {
				return nil, command.UsageError(from + ": " + err.Error())
			}
			b.from = from + " " + b.address.String()
			bindings = append(bindings, b)
		}
		if len(bindings) == before {
			return nil, command.UsageError(from + ": missing address, which is a port, HOST:PORT or a directory")
		}
	}
	return bindings, nil
}

// parseBinding reads ADDRESS or ADDRESS = DSN. Its errors do not contain the DSN,
// which can have a password.
func parseBinding(text string) (*binding, error) {
	where, value, hasDSN := strings.Cut(text, "=")
	where, value = strings.TrimSpace(where), strings.TrimSpace(value)
	if strings.Contains(where, "://") {
		return nil, errors.New("missing address before the DSN; want ADDRESS=DSN")
	}
	if hasDSN && !dsn.Is(value) {
		return nil, fmt.Errorf("%q must be followed by a DSN: a postgres:// URL or a list of key=value settings", where+"=")
	}
	address, err := listener.Parse(where, defaultPort)
	if err != nil {
		return nil, err
	}
	return &binding{address: address, dsn: value, hasDSN: hasDSN}, nil
}

// readBindings reads a file with a line ADDRESS = DSN for each binding. Comments
// begin with # at the beginning of a line or after white space.
func readBindings(path string) ([]*binding, error) {
	source := sourceOf("config", path)
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	var bindings []*binding
	n := 0
	for line := range strings.Lines(string(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")))) {
		n++
		line = strings.TrimSpace(withoutComment(line))
		if line == "" {
			continue
		}
		from := fmt.Sprintf("%s: %s, line %d", source, path, n)
		b, err := parseBinding(line)
		switch {
		case err != nil:
			return nil, command.UsageError(fmt.Sprintf("%s: %s", from, err))
		case !b.hasDSN:
			return nil, command.UsageError(fmt.Sprintf("%s: missing DSN; a line is ADDRESS = DSN", from))
		}
		b.from = from
		bindings = append(bindings, b)
	}
	if len(bindings) == 0 {
		return nil, command.UsageError(fmt.Sprintf("%s: %s has no line ADDRESS = DSN", source, path))
	}
	return bindings, nil
}

// withoutComment removes a comment. A # inside the quotes of a DSN does not begin one.
func withoutComment(line string) string {
	quoted, space := false, true
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\':
			i++
		case c == '\'':
			quoted = !quoted
		case c == '#' && space && !quoted:
			return line[:i]
		default:
			space = c == ' ' || c == '\t'
		}
	}
	return line
}
