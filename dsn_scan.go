package entrapg

import (
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/jackc/pgservicefile"
)

// This file reads a DSN, PG* variables and service files as pgx does in
// pgconn/config.go, parse_url.go and defaults*.go (v5.12), to learn what a parsed
// configuration does not tell. pgx stays the judge: FuzzDSN holds the two
// together.

// environment returns those settings of PG* variables that matter here.
func environment() map[string]string {
	said := map[string]string{}
	for key, name := range map[string]string{"user": "PGUSER", "sslmode": "PGSSLMODE", "service": "PGSERVICE", "servicefile": "PGSERVICEFILE", "sslrootcert": "PGSSLROOTCERT", "connect_timeout": "PGCONNECT_TIMEOUT"} {
		if v := os.Getenv(name); v != "" {
			said[key] = v
		}
	}
	return said
}

// service returns the settings of the service that said names, from the file
// where pgx looks for it. What is wrong with that file is left to pgx to say.
func service(said map[string]string) map[string]string {
	name, ok := said["service"]
	if !ok {
		return nil
	}
	path, ok := said["servicefile"]
	if !ok {
		path = defaultServiceFile()
	}
	file, err := pgservicefile.ReadServicefile(path)
	if err != nil {
		return nil
	}
	found, err := file.GetService(name)
	if err != nil {
		return nil
	}
	return found.Settings
}

func defaultServiceFile() string {
	if appData := os.Getenv("APPDATA"); runtime.GOOS == "windows" && appData != "" {
		path := filepath.Join(appData, "postgresql", ".pg_service.conf")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".pg_service.conf")
}

func merge(sets ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

// scan reads the settings of a DSN as pgx does, and where the query of a URL
// begins, -1 for none. It does not judge: what is malformed is passed over
// somehow, and pgx, which is asked next, refuses it.
func scan(dsn string) (said map[string]string, query int) {
	if isURL(dsn) {
		return scanURL(dsn)
	}
	return scanKeywords(dsn), -1
}

func isURL(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}

type setting struct{ key, value string }

// prepend adds settings in front, where every other occurrence overrides them.
func prepend(settings []setting, dsn string, query int) string {
	var keywords, parameters strings.Builder
	for _, s := range settings {
		keywords.WriteString(s.key + "='" + s.value + "' ")
		parameters.WriteString(s.key + "=" + s.value + "&")
	}
	switch {
	case !isURL(dsn):
		return keywords.String() + dsn
	case query < 0:
		return dsn + "?" + parameters.String()
	default:
		return dsn[:query+1] + parameters.String() + dsn[query+1:]
	}
}

const space = " \t\n\r\v\f"

func scanKeywords(s string) map[string]string {
	said := map[string]string{}
	for {
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			return said
		}
		key, rest = strings.Trim(key, space), strings.TrimLeft(rest, space)
		unquoted, quoted := strings.CutPrefix(rest, "'")
		rest = unquoted

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
		s = rest[min(i, len(rest)):]

		if key != "user" || value.Len() > 0 { // pgx passes over an empty user, in this form only
			said[key] = value.String()
		}
	}
}

func scanURL(dsn string) (said map[string]string, query int) {
	said = map[string]string{}
	_, rest, _ := strings.Cut(dsn, "://")
	// Only a slash ends the search for the credentials, not a question mark.
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		user, password, _ := strings.Cut(rest[:i], ":")
		said["user"], said["password"] = unescape(user), unescape(password)
		rest = rest[i+1:]
	}
	// An empty one leaves PGUSER and the service file in force.
	maps.DeleteFunc(said, func(_, v string) bool { return v == "" })

	i := queryStart(rest)
	if i < 0 {
		return said, -1
	}
	sslLast := false // JDBC's ssl=true means sslmode=require, unless an sslmode follows
	for pair := range strings.SplitSeq(rest[i+1:], "&") {
		key, value, _ := strings.Cut(pair, "=")
		key = unescape(key)
		said[key] = unescape(value)
		switch key {
		case "ssl":
			sslLast = true
		case "sslmode":
			sslLast = false
		}
	}
	if said["ssl"] == "true" && sslLast {
		said["sslmode"] = "require"
	}
	return said, len(dsn) - len(rest) + i
}

// queryStart finds the question mark that begins the query in what follows a
// URL's credentials. One between the brackets of an IPv6 host does not.
func queryStart(s string) int {
	for i := 0; ; i++ {
		if strings.HasPrefix(s[i:], "[") {
			end := strings.IndexByte(s[i:], ']')
			if end < 0 {
				return -1
			}
			i += end
		}
		n := strings.IndexAny(s[i:], ",/?")
		if n < 0 {
			return -1
		}
		i += n
		switch s[i] {
		case '?':
			return i
		case '/':
			n := strings.IndexByte(s[i:], '?')
			if n < 0 {
				return -1
			}
			return i + n
		}
	}
}

func unescape(s string) string {
	s = strings.Trim(s, " ")
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}
