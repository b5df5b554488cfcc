package entrapgtest

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A setting is a key and a value of a DSN.
type setting struct{ key, value string }

// environmentSettings are the settings that PG* variables change, each with the value
// that is equivalent to omitting it.
var environmentSettings = []struct{ variable, key, value string }{
	{"PGUSER", "user", ""},
	{"PGAPPNAME", "application_name", ""},
	{"PGCHANNELBINDING", "channel_binding", "prefer"},
	{"PGCONNECT_TIMEOUT", "connect_timeout", "0"},
	{"PGMAXPROTOCOLVERSION", "max_protocol_version", "3.0"},
	{"PGMINPROTOCOLVERSION", "min_protocol_version", "3.0"},
	{"PGOPTIONS", "options", ""},
	{"PGREQUIREAUTH", "require_auth", ""},
	{"PGSSLCERT", "sslcert", ""},
	{"PGSSLCERTMODE", "sslcertmode", "allow"},
	{"PGSSLKEY", "sslkey", ""},
	{"PGSSLNEGOTIATION", "sslnegotiation", "postgres"},
	{"PGSSLPASSWORD", "sslpassword", ""},
	{"PGSSLSNI", "sslsni", "1"},
	{"PGTARGETSESSIONATTRS", "target_session_attrs", "any"},
	{"PGTZ", "timezone", "UTC"},
}

// defaults returns the settings that keep the PG* variables of this process from
// changing a connection. A service cannot be unset: it is replaced by an empty one in a
// file in dir.
func defaults(dir string) []setting {
	var all []setting
	for _, s := range environmentSettings {
		if os.Getenv(s.variable) != "" {
			all = append(all, setting{s.key, s.value})
		}
	}
	if os.Getenv("PGSERVICE") != "" {
		file := filepath.Join(dir, "service.conf")
		_ = os.WriteFile(file, []byte("[entrapgtest]\n"), 0o644) // if it fails, connecting reports the missing file
		all = append(all, setting{"service", "entrapgtest"}, setting{"servicefile", file})
	}
	return all
}

// connectionURL returns a URL for an address. Each change sets a setting, as "key=value",
// or removes the setting key.
func connectionURL(address string, settings []setting, changes []string) string {
	for _, change := range changes {
		key, value, set := strings.Cut(change, "=")
		settings = slices.DeleteFunc(settings, func(s setting) bool { return s.key == key })
		if set {
			settings = append(settings, setting{key, value})
		}
	}

	u := url.URL{Scheme: "postgres", Host: address}
	var query []string
	for _, s := range settings {
		switch {
		case s.key == "dbname":
			u.Path = "/" + s.value
		case s.key == "user" && s.value != "":
			u.User = url.User(s.value)
		default:
			value := strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(s.value))
			query = append(query, s.key+"="+value)
		}
	}
	u.RawQuery = strings.Join(query, "&")
	return u.String()
}
