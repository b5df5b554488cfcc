package credfail

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Condense returns the text of an error of azidentity with the message of each HTTP
// response instead of the response. The text has a line for each part, such as a member
// of a chain.
func Condense(text string) string { return strings.Join(parts(text), "\n") }

// Summarize is like Condense, but returns one line, without links to azidentity's
// documentation.
func Summarize(text string) string {
	var line strings.Builder
	for _, part := range parts(link.ReplaceAllString(text, "")) {
		switch end := line.String(); {
		case end == "":
		case strings.HasSuffix(end, ".") || strings.HasSuffix(end, ":"):
			line.WriteString(" ")
		default:
			line.WriteString("; ")
		}
		line.WriteString(part)
	}
	return line.String()
}

var (
	// dump matches an HTTP response in an error of azidentity.
	dump = regexp.MustCompile(
		`(?s)\s*(?:GET|POST) https?://\S+\n-{10,}\nRESPONSE (\d+)[^\n]*\n-{10,}\n(.*?)\n-{10,}\n?`)

	// indentation matches the tabs by which a chain of credentials indents the errors of its
	// members.
	indentation = regexp.MustCompile(`(?m)^\t+`)

	link = regexp.MustCompile(`\s*To troubleshoot, visit https://\S+`)
)

// parts returns the lines of a text that are not empty, without indentation, after
// replacing the HTTP responses in it.
func parts(text string) []string {
	text = dump.ReplaceAllStringFunc(indentation.ReplaceAllString(text, ""), func(found string) string {
		response := dump.FindStringSubmatch(found)
		status, _ := strconv.Atoi(response[1])
		return fmt.Sprintf("\nHTTP %d %s: %s\n", status, http.StatusText(status), reason(response[2]))
	})
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return slices.DeleteFunc(lines, func(line string) bool { return line == "" })
}

// reason returns the message in the body of a response of Entra or of a managed
// identity endpoint, or else the body, as one line of printable characters.
func reason(body string) string {
	var object struct {
		Description string `json:"error_description"`
		Message     string `json:"message"`
	}
	text := body
	if json.Unmarshal([]byte(body), &object) == nil {
		text = cmp.Or(object.Description, object.Message, body)
	}
	if strings.Contains(text, "eyJ") { // escapes in JSON can hide a token from those who searched for one
		text = body
	}
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
}
