package connstring

import (
	"maps"
	"net/url"
	"strings"
)

func isURL(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}

// scanURL reads a DSN of the form postgres://user:password@host:port/dbname?key=value.
// It also returns the index of the question mark that starts the query, or -1.
func scanURL(dsn string) (s Settings, query int) {
	s = Settings{}
	_, rest, _ := strings.Cut(dsn, "://")
	// As in libpq, only a slash ends the search for credentials, not a question mark.
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		user, password, _ := strings.Cut(rest[:i], ":")
		set(s, "user", user)
		set(s, "password", password)
		rest = rest[i+1:]
	}
	hosts, ports, rest := scanHosts(rest)
	set(s, "host", hosts)
	set(s, "port", ports)

	path, parameters, found := strings.Cut(rest, "?")
	set(s, "dbname", strings.TrimPrefix(path, "/"))
	if !found {
		return s, -1
	}
	maps.Copy(s, scanQuery(parameters))
	return s, len(dsn) - len(parameters) - 1
}

// CutQuery separates a URL from its query, without the question mark between them.
func CutQuery(dsn string) (before, query string, found bool) {
	_, i := scanURL(dsn)
	if i < 0 {
		return dsn, "", false
	}
	return dsn[:i], dsn[i+1:], true
}

// set decodes and stores a part of a URL, unless it is empty, as in pgx.
func set(s Settings, key, raw string) {
	if raw != "" {
		s[key] = Setting{Value: decode(raw), Origin: OriginDSN}
	}
}

// scanHosts reads host:port,[host]:port,… up to the path or the query, into
// lists that are separated by commas and have the same number of elements. The
// brackets of an IPv6 host may contain any character.
func scanHosts(s string) (hosts, ports, rest string) {
	var host, port strings.Builder
	for {
		if strings.HasPrefix(s, "[") {
			end := strings.IndexByte(s, ']')
			if end < 0 {
				return "", "", "" // pgx rejects it
			}
			host.WriteString(s[1:end])
			s = s[end+1:]
		} else {
			end := indexAny(s, ":/?,")
			host.WriteString(s[:end])
			s = s[end:]
		}
		if after, ok := strings.CutPrefix(s, ":"); ok {
			end := indexAny(after, "/?,")
			port.WriteString(after[:end])
			s = after[end:]
		}
		after, ok := strings.CutPrefix(s, ",")
		if !ok {
			return host.String(), port.String(), s
		}
		host.WriteByte(',')
		port.WriteByte(',')
		s = after
	}
}

// indexAny returns len(s) if none of chars is in s.
func indexAny(s, chars string) int {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return i
	}
	return len(s)
}

func scanQuery(parameters string) Settings {
	s := Settings{}
	sslLast := false
	for pair := range strings.SplitSeq(parameters, "&") {
		rawKey, rawValue, ok := strings.Cut(pair, "=")
		if !ok {
			continue // the end of the query; pgx rejects it elsewhere
		}
		key := canonicalKey(decode(rawKey))
		s[key] = Setting{Value: decode(rawValue), Origin: OriginDSN}
		switch key {
		case "ssl":
			sslLast = true
		case "sslmode":
			sslLast = false
		}
	}
	// JDBC's ssl=true means sslmode=require, unless an sslmode follows it.
	if s.Value("ssl") == "true" {
		delete(s, "ssl")
		if sslLast {
			s["sslmode"] = Setting{Value: "require", Origin: OriginDSN}
		}
	}
	return s
}

// decode decodes a part of a URL. It returns malformed parts, which pgx rejects,
// unchanged.
func decode(s string) string {
	s = strings.Trim(s, " ")
	if decoded, err := url.PathUnescape(s); err == nil {
		return decoded
	}
	return s
}
