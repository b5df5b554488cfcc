package doctor

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"regexp"
	"strings"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/settings"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/spelling"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
)

// settingsStep reads the DSN, the environment and service files.
type settingsStep struct{ *examination }

func (s settingsStep) read(_ context.Context, f *finding) *trouble {
	login, err := inspect.Open(s.dsn)
	var config *entrapg.ConfigError
	switch {
	case errors.As(err, &config):
		return &trouble{Error: strings.TrimPrefix(config.Error(), "entrapg: "), Fix: s.fix(config)}
	case err != nil:
		return &trouble{Error: strings.TrimPrefix(err.Error(), "entrapg: "), Fix: s.fixUser(err)}
	}
	s.login = login
	s.endpoints = endpointsOf(login.Config)
	f.Settings = settings.InEffect(login, s.source)
	f.Found = settings.ByOrigin(f.Settings)
	if login.Azure && (login.SSLMode == "require" || login.SSLMode == "verify-ca" && !login.Entra()) {
		f.note("sslmode=%s is treated as verify-full for Azure servers", login.SSLMode)
	}
	if !login.Entra() {
		f.note("the login uses a password, not Entra ID")
	}
	if _, ok := login.Settings["dbname"]; !ok {
		f.note("no database is set: the server uses the one that has the user's name")
	}
	return nil
}

// fixUser returns the lines that fix a user that cannot be the name of a role.
func (s settingsStep) fixUser(err error) []string {
	var user *entrapg.UsernameError
	if !errors.As(err, &user) {
		return nil
	}
	if lines := remedies(s).drop("user"); lines != nil {
		return lines
	}
	return remedies(s).set("user", "ROLE")
}

// fix returns the lines that fix an invalid setting.
func (s settingsStep) fix(e *entrapg.ConfigError) []string {
	r, value, fix := remedies(s), s.settings().Value(e.Setting), inspect.FixOf(e)
	switch {
	case fix.Plaintext:
		return r.set("sslmode", "disable")
	case fix.Remove:
		return r.drop(e.Setting)
	case fix.Escape && e.Setting != "dsn":
		return r.set(e.Setting, cmp.Or(s.unescaped(e.Setting), "VALUE"))
	}
	switch e.Setting {
	case "dsn":
		return s.fixDSN()
	case "sslmode":
		modes := []string{"require", "verify-ca", "verify-full"}
		return r.set("sslmode", spelling.Closest(value, modes, "verify-full"))
	case "service":
		return s.fixService(fix)
	case "host":
		return r.set("host", "SERVER.postgres.database.azure.com")
	case "port":
		return r.set("port", "5432")
	case "connect_timeout":
		return r.set("connect_timeout", cmp.Or(leadingDigits.FindString(value), "10"))
	case "target_session_attrs":
		kinds := []string{"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}
		return r.set("target_session_attrs", spelling.Closest(value, kinds, "any"))
	case "user", "dbname": // begins or ends with white space
		return r.set(e.Setting, strings.TrimSpace(value))
	case "entra_credential":
		return r.set("entra_credential", spelling.Closest(value, inspect.Credentials(), "default"))
	case "entra_tenant_id", "entra_client_id":
		return s.fixIdentity(e.Setting, value, fix)
	case "sslrootcert", "sslcert", "sslkey":
		if path, ok := s.windowsPath(e.Setting); ok {
			return r.set(e.Setting, path)
		}
		if e.Setting == "sslrootcert" && value != "" {
			return append([]string{"# for the roots of the system"}, r.drop(e.Setting)...)
		}
	}
	return r.replace(e.Setting, cmp.Or(fix.Key, spelling.Closest(strings.ToLower(e.Setting), knownKeys, "")))
}

// unescaped returns the value of a parameter of a URL that is not escaped, or "" for a secret.
func (s settingsStep) unescaped(key string) string {
	if key == "password" || key == "sslpassword" {
		return ""
	}
	_, query, _ := connstring.CutQuery(connstring.Clean(s.dsn))
	for parameter := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(parameter, "=")
		decoded, err := url.PathUnescape(value)
		switch {
		case name != key:
		case err != nil:
			return value
		case strings.Contains(value, "="):
			return decoded
		}
	}
	return ""
}

// fixService returns the lines that fix a service whose settings cannot be read.
func (s settingsStep) fixService(fix inspect.Fix) []string {
	if fix.Variable != "" {
		return []string{"# in the environment", quote.Export(fix.Variable, "SERVICE_FILE")}
	}
	file := quote.Shell(connstring.ServiceFile(s.settings()))
	return []string{"# shows the services of the file", `grep '^\[' ` + file}
}

var leadingDigits = regexp.MustCompile(`^[1-9][0-9]*`)

// fixIdentity returns the lines that fix a setting that chooses an identity.
func (s settingsStep) fixIdentity(key, value string, fix inspect.Fix) []string {
	r := remedies(s)
	switch {
	case fix.Malformed && key == "entra_tenant_id":
		return append([]string{"az account show --query tenantId --output tsv"}, r.set(key, "TENANT_ID")...)
	case fix.Malformed:
		return append([]string{
			"az identity list --query '[].{name:name,clientId:clientId}' --output table",
		}, r.set(key, "CLIENT_ID")...)
	case fix.Variable != "":
		lines := append(r.drop(key), quote.Export(fix.Variable, value))
		if key == "entra_client_id" {
			lines = append(lines, "# or, for a managed identity, keep it and choose that credential:")
			lines = append(lines, r.set("entra_credential", "managedidentity")...)
		}
		return lines
	default:
		return r.drop(key)
	}
}

// fixDSN returns the escaped user if a URL contains an unescaped one, otherwise an
// example of a DSN. A URL with a password is not shown.
func (s settingsStep) fixDSN() []string {
	_, rest, ok := strings.Cut(connstring.Clean(s.dsn), "://")
	end := strings.LastIndexByte(strings.Split(rest, "?")[0], '@')
	if !ok || end < 0 || strings.Contains(rest[:end], ":") || !strings.ContainsAny(rest[:end], "@/") {
		return []string{"# for example", "postgres://SERVER.postgres.database.azure.com/DATABASE"}
	}
	user := strings.ReplaceAll(url.QueryEscape(rest[:end]), "+", "%20")
	return []string{quote.Comment("# in " + s.origin("user") + ", before the @ of the host"), user}
}

// driveWithoutSeparator matches a path of Windows whose backslashes are lost.
var driveWithoutSeparator = regexp.MustCompile(`^[A-Za-z]:[^\\/]`)

// windowsPath returns the path that key=value settings contain if its backslashes
// are not doubled.
func (s settingsStep) windowsPath(key string) (path string, ok bool) {
	if connstring.IsURL(s.dsn) || !driveWithoutSeparator.MatchString(s.settings().Value(key)) {
		return "", false
	}
	pattern := `(?:^|\s)` + regexp.QuoteMeta(key) + `\s*=\s*(?:'([A-Za-z]:\\[^']*)'|([A-Za-z]:\\\S*))`
	match := regexp.MustCompile(pattern).FindStringSubmatch(s.dsn)
	if match == nil {
		return "", false
	}
	return match[1] + match[2], true
}
