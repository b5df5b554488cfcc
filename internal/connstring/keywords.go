package connstring

import "strings"

const space = " \t\n\r\v\f"

// scanKeywords reads a DSN of the form key=value key='quoted value'.
func scanKeywords(dsn string) Settings {
	s := Settings{}
	for {
		key, rest, ok := strings.Cut(dsn, "=")
		if !ok {
			return s
		}
		key, rest = strings.Trim(key, space), strings.TrimLeft(rest, space)
		rest, quoted := strings.CutPrefix(rest, "'")

		var value strings.Builder
		i := 0
		for ; i < len(rest); i++ {
			if quoted && rest[i] == '\'' || !quoted && strings.IndexByte(space, rest[i]) >= 0 {
				break
			}
			if rest[i] == '\\' {
				if i++; i == len(rest) {
					break
				}
			}
			value.WriteByte(rest[i])
		}
		if quoted {
			i++
		}
		dsn = rest[min(i, len(rest)):]

		if key != "user" || value.Len() > 0 { // pgx ignores an empty user, in this form only
			s[canonicalKey(key)] = Setting{Value: value.String(), Origin: OriginDSN}
		}
	}
}
