package quote

import (
	"fmt"
	"runtime"
	"strings"
	"unicode/utf8"
)

// Shell quotes a string for a POSIX shell.
func Shell(s string) string {
	switch {
	case plain.MatchString(s):
		return s
	case utf8.ValidString(s) && !strings.ContainsFunc(s, unprintable):
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder // POSIX.1-2024, bash, zsh and ksh
	b.WriteString("$'")
	for i := range len(s) {
		if plain.MatchString(s[i : i+1]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, `\%03o`, s[i])
		}
	}
	b.WriteString("'")
	return b.String()
}

// Export returns the command that sets an environment variable, in the shell that is
// usual on this system.
func Export(name, value string) string {
	if runtime.GOOS == "windows" {
		return "$env:" + name + " = " + PowerShell(Comment(value))
	}
	return "export " + name + "=" + Shell(value)
}

// Unset returns the command that removes an environment variable.
func Unset(name string) string {
	if runtime.GOOS == "windows" {
		return "Remove-Item Env:" + name
	}
	return "unset " + name
}

// Comment keeps a comment of a shell or of SQL, or a text for PowerShell, in one line.
func Comment(s string) string {
	return strings.Map(func(r rune) rune {
		if unprintable(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// Inert replaces characters that a shell interprets with look-alikes. By default, an
// interactive zsh, the shell of macOS, runs a comment that is pasted as a command.
func Inert(s string) string { return lookalikes.Replace(s) }

var lookalikes = strings.NewReplacer(
	"'", "\u2019", `"`, "\u201d", "`", "\u2018", "$", "\uff04", ";", "\uff1b", "&", "\uff06", "|", "\uff5c",
	"<", "\uff1c", ">", "\uff1e", "(", "\uff08", ")", "\uff09", "!", "\uff01", "{", "\uff5b", `\`, "\uff3c",
)

// PowerShell quotes a value for PowerShell. It doubles typographic quotation marks too,
// because PowerShell treats them as straight ones.
func PowerShell(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		if strings.ContainsRune("'\u2018\u2019\u201a\u201b", r) {
			b.WriteRune(r)
		}
		b.WriteRune(r)
	}
	b.WriteByte('\'')
	return b.String()
}
