package connstring

import "os"

// variables are the environment variables that pgx reads, and PGHOSTADDR, which
// only libpq does, by libpq's key.
var variables = map[string]string{
	"host":                 "PGHOST",
	"hostaddr":             "PGHOSTADDR",
	"port":                 "PGPORT",
	"dbname":               "PGDATABASE",
	"user":                 "PGUSER",
	"password":             "PGPASSWORD",
	"passfile":             "PGPASSFILE",
	"application_name":     "PGAPPNAME",
	"connect_timeout":      "PGCONNECT_TIMEOUT",
	"sslmode":              "PGSSLMODE",
	"sslkey":               "PGSSLKEY",
	"sslcert":              "PGSSLCERT",
	"sslcertmode":          "PGSSLCERTMODE",
	"sslsni":               "PGSSLSNI",
	"sslrootcert":          "PGSSLROOTCERT",
	"sslpassword":          "PGSSLPASSWORD",
	"sslnegotiation":       "PGSSLNEGOTIATION",
	"target_session_attrs": "PGTARGETSESSIONATTRS",
	"service":              "PGSERVICE",
	"servicefile":          "PGSERVICEFILE",
	"timezone":             "PGTZ",
	"options":              "PGOPTIONS",
	"min_protocol_version": "PGMINPROTOCOLVERSION",
	"max_protocol_version": "PGMAXPROTOCOLVERSION",
	"channel_binding":      "PGCHANNELBINDING",
	"require_auth":         "PGREQUIREAUTH",
}

// Variable returns the environment variable that sets key, or "".
func Variable(key string) string { return variables[key] }

// environment returns the settings of the PG* variables. An empty variable
// counts as unset, except PGSSLCERTMODE, which pgx rejects when it is empty.
func environment() Settings {
	s := Settings{}
	for key, name := range variables {
		if value, ok := os.LookupEnv(name); value != "" || ok && key == "sslcertmode" {
			s[key] = Setting{Value: value, Origin: name}
		}
	}
	return s
}
