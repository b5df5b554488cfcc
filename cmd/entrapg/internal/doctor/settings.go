package doctor

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"os"
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
type settingsStep struct{ *state }

func (s settingsStep) read(_ context.Context, f *finding) *problem {
	login, err := inspect.Open(s.dsn)
	var config *entrapg.ConfigError
	switch {
	case errors.As(err, &config):
		return &problem{Error: strings.TrimPrefix(config.Error(), "entrapg: "), Fix: s.fix(config)}
	case err != nil:
		return &problem{Error: strings.TrimPrefix(err.Error(), "entrapg: "), Fix: s.fixUser(err)}
	}
	s.login = login
	s.endpoints = endpointsOf(login)
	f.Settings = settings.InEffect(login, s.source)
	f.Found = settings.ByOrigin(f.Settings)
	if login.Azure && (login.SSLMode == "require" || login.SSLMode == "verify-ca" && !login.Entra()) {
		f.note("sslmode=%s is treated as verify-full for Azure servers", login.SSLMode)
	}
	if !login.Entra() {
		f.note("the login uses a password, not Entra ID")
	}
	if _, ok := login.Settings["dbname"]; !ok {
		f.note("no database is set: the server uses the database that is named after the user")
	}
	return nil
}

// fixUser returns the lines that fix a user that cannot be the name of a role.
func (s settingsStep) fixUser(err error) []string {
	var user *entrapg.UsernameError
	if !errors.As(err, &user) {
		return nil
	}
	if lines := fixes(s).drop("user"); lines != nil {
		return lines
	}
	return fixes(s).set("user", "ROLE")
}

// fix returns the lines that fix an invalid setting.
func (s settingsStep) fix(e *entrapg.ConfigError) []string {
	fix, value, hint := fixes(s), s.settings().Value(e.Setting), inspect.FixOf(e)
	switch {
	case hint.Plaintext:
		return fix.set("sslmode", "disable")
	case hint.Remove:
		return fix.drop(e.Setting)
	case hint.Escape && e.Setting != "dsn":
		return fix.set(e.Setting, cmp.Or(s.unescaped(e.Setting), "VALUE"))
	}
	switch e.Setting {
	case "dsn":
		return s.fixDSN()
	case "sslmode":
		modes := []string{"require", "verify-ca", "verify-full"}
		return fix.set("sslmode", spelling.Closest(value, modes, "verify-full"))
	case "service":
		return s.fixService(hint)
	case "host":
		return fix.set("host", "SERVER.postgres.database.azure.com")
	case "port":
		return fix.set("port", "5432")
	case "connect_timeout":
		return fix.set("connect_timeout", cmp.Or(leadingDigits.FindString(value), "10"))
	case "target_session_attrs":
		kinds := []string{"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}
		return fix.set("target_session_attrs", spelling.Closest(value, kinds, "any"))
	case "password":
		hosts := strings.Split(cmp.Or(s.settings().Value("host"), s.settings().Value("hostaddr"), "localhost"), ",")
		return append(fix.drop(e.Setting),
			fix.withPassword(hosts, "# or, to log in with this password instead of a token: keep it, and add")...)
	case "user", "dbname": // begins or ends with white space
		return fix.set(e.Setting, strings.TrimSpace(value))
	case "entra_credential":
		return fix.set("entra_credential", spelling.Closest(value, inspect.Credentials(), "default"))
	case "entra_tenant_id", "entra_client_id":
		return s.fixIdentity(e.Setting, value, hint)
	case "sslrootcert", "sslcert", "sslkey":
		if path, ok := s.windowsPath(e.Setting); ok {
			return fix.set(e.Setting, path)
		}
		if e.Setting == "sslrootcert" && value != "" {
			return append([]string{"# for the roots of the system"}, fix.drop(e.Setting)...)
		}
	}
	return fix.replace(e.Setting, cmp.Or(hint.Key, spelling.Closest(strings.ToLower(e.Setting), knownKeys, "")))
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
func (s settingsStep) fixService(hint inspect.Fix) []string {
	if hint.Variable != "" {
		return []string{"# in the environment", quote.Export(hint.Variable, "SERVICE_FILE")}
	}
	file := connstring.ServiceFile(s.settings())
	if _, err := os.Stat(file); err != nil {
		return fixes(s).set("servicefile", "SERVICE_FILE")
	}
	return []string{"# shows the services of the file", `grep '^\[' ` + quote.Shell(file)}
}

var leadingDigits = regexp.MustCompile(`^[1-9][0-9]*`)

// fixIdentity returns the lines that fix a setting that chooses an identity.
func (s settingsStep) fixIdentity(key, value string, hint inspect.Fix) []string {
	fix := fixes(s)
	switch {
	case hint.Malformed && key == "entra_tenant_id":
		return append([]string{"az account show --query tenantId --output tsv"}, fix.set(key, "TENANT_ID")...)
	case hint.Malformed:
		return append([]string{
			"az identity list --query '[].{name:name,clientId:clientId}' --output table",
		}, fix.set(key, "CLIENT_ID")...)
	case hint.Variable != "":
		lines := append(fix.drop(key), quote.Export(hint.Variable, value))
		if key == "entra_client_id" {
			lines = append(lines, "# or, for a managed identity, keep it and choose that credential:")
			lines = append(lines, fix.set("entra_credential", "managedidentity")...)
		}
		return lines
	default:
		return fix.drop(key)
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
