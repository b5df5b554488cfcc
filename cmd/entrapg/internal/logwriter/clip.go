package logwriter

import "strings"

// maxName bounds the text that a client can write to a log before it logs in.
const maxName = 128

// Clip shortens a name that a client sent to at most 128 bytes and an ellipsis.
func Clip(name string) string {
	if len(name) <= maxName {
		return name
	}
	return strings.ToValidUTF8(name[:maxName], "") + "…"
}
