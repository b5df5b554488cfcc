package entrapgtest

import (
	"bytes"
	"encoding/binary"
	"net"
	"regexp"
	"strings"
)

// maxStatement is the longest message that is searched for an Entra statement.
const maxStatement = 1 << 20

// An adminConn is an administrator's connection to the real server. It replaces SECURITY
// LABEL for "pgaadauth" by a procedure call, because PostgreSQL has no such label
// provider. Before an Entra statement, it updates the table of the tenant's principals.
type adminConn struct {
	net.Conn
	writePrincipals func() // into the database of the session

	pending []byte // the beginning of an incomplete message
	passing int    // remaining bytes of a message that is forwarded unchanged
}

// Write forwards a client's messages. It rewrites Entra statements.
func (a *adminConn) Write(b []byte) (int, error) {
	var out []byte
	for rest := b; len(rest) > 0; {
		if a.passing > 0 {
			n := min(a.passing, len(rest))
			out = append(out, rest[:n]...)
			a.passing -= n
			rest = rest[n:]
			continue
		}
		const head = 5
		need := head
		if len(a.pending) >= head {
			need = 1 + int(binary.BigEndian.Uint32(a.pending[1:]))
		}
		n := min(need-len(a.pending), len(rest))
		a.pending = append(a.pending, rest[:n]...)
		rest = rest[n:]
		if len(a.pending) < head {
			continue
		}
		length := int(binary.BigEndian.Uint32(a.pending[1:]))
		kind := a.pending[0]
		switch {
		case kind != 'Q' && kind != 'P' || length > maxStatement || length < 4:
			out = append(out, a.pending...)
			a.passing = max(0, 1+length-len(a.pending))
			a.pending = a.pending[:0]
		case len(a.pending) == 1+length:
			out = append(out, a.rewrite(a.pending)...)
			a.pending = a.pending[:0]
		}
	}
	if _, err := a.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// rewrite returns the Query or Parse message to send instead of message.
func (a *adminConn) rewrite(message []byte) []byte {
	const head = 5
	if !bytes.Contains(bytes.ToLower(message), []byte("aadauth")) {
		return message
	}
	a.writePrincipals()
	start := head
	if message[0] == 'P' { // the statement's name comes first
		end := bytes.IndexByte(message[head:], 0)
		if end < 0 {
			return message
		}
		start += end + 1
	}
	end := bytes.IndexByte(message[start:], 0)
	if end < 0 {
		return message
	}
	text := string(message[start : start+end])
	out := append([]byte(nil), message[:start]...)
	out = append(out, replaceLabels(text)...)
	out = append(out, message[start+end:]...)
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
	return out
}

// securityLabel matches the statement, also in a string for EXECUTE, where quotes are
// doubled, or for format, where %I and %L stand for the role and the label.
var securityLabel = regexp.MustCompile(
	`(?is)\bsecurity\s+label\s+for\s+(?:"pgaadauth"|pgaadauth|'{1,2}pgaadauth'{1,2})\s+on\s+role\s+` +
		`("(?:[^"]|"")+"|%(?:\d+\$)?I|[\p{L}_][\p{L}\p{N}_$]*)\s+is\s+` +
		`(''[^']+''|'(?:[^']|'')*'|\$\$[^$]*\$\$|%(?:\d+\$)?L|null\b)`)

func replaceLabels(text string) string {
	return securityLabel.ReplaceAllStringFunc(text, func(statement string) string {
		parts := securityLabel.FindStringSubmatch(statement)
		role, label := parts[1], parts[2]
		quote := "'"
		if strings.HasPrefix(label, "''") && len(label) > 2 {
			quote = "''"
		}
		switch role[0] {
		case '%':
			role = role[:len(role)-1] + "L"
		case '"':
			role = strings.ReplaceAll(role[1:len(role)-1], `""`, `"`)
			role = quote + strings.ReplaceAll(role, "'", quote+quote) + quote
		default:
			role = quote + strings.ToLower(role) + quote
		}
		return "call pg_aadauth.security_label(" + role + ", " + label + ")"
	})
}
