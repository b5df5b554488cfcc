package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
)

// A setting is a setting in effect. Its origin is "DSN", "argument", "--dsn", an
// environment variable, "service NAME in FILE", or "default".
type setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
}

// originDefault is the origin of a setting that is not set.
const originDefault = "default"

// shownSettings are the DSN's keys that are shown. Any other key could be a piece of
// an unquoted password.
var shownSettings = []string{
	"host", "hostaddr", "port", "dbname", "user", "service", "servicefile",
	"sslmode", "sslrootcert", "sslcert", "sslkey", "sslcertmode", "sslsni", "sslnegotiation",
	"target_session_attrs", "connect_timeout", "application_name", "channel_binding", "require_auth", "passfile",
	"min_protocol_version", "max_protocol_version", "timezone",
	"entra_credential", "entra_client_id", "entra_tenant_id", "entra_scope",
}

// Variables that azidentity reads.
var (
	httpVariables     = []string{"AZURE_AUTHORITY_HOST", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"}
	identityVariables = []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET", "IMDS_ENDPOINT"}
	clientVariables   = []string{
		"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH",
		"AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_USERNAME", "AZURE_PASSWORD",
	}

	credentialVariables = map[string][]string{
		"DefaultAzureCredential": slices.Concat(
			[]string{"AZURE_TOKEN_CREDENTIALS"}, clientVariables, []string{"AZURE_FEDERATED_TOKEN_FILE"}, identityVariables, httpVariables,
		),
		"EnvironmentCredential": slices.Concat(clientVariables, httpVariables),
		"WorkloadIdentityCredential": slices.Concat(
			[]string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"}, httpVariables,
		),
		"ManagedIdentityCredential": slices.Concat(identityVariables, httpVariables),
	}

	secretVariables = []string{
		"AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_PASSWORD", "IDENTITY_HEADER", "MSI_SECRET",
	}
)

// settingsOf lists the settings of a login that are in effect. source is the origin of
// the DSN.
func settingsOf(login *inspect.Login, source string) []setting {
	if source == "" {
		source = connstring.OriginDSN
	}
	defaults := map[string]string{"sslmode": login.SSLMode, "entra_credential": "default"}
	if login.Config.Host != "" && !strings.HasPrefix(login.Config.Host, "/") {
		defaults["port"] = fmt.Sprint(login.Config.Port)
	}
	var all []setting
	for _, key := range shownSettings {
		set, ok := login.Settings[key]
		switch {
		case ok && set.Origin == connstring.OriginDSN:
			all = append(all, setting{key, set.Value, source})
		case ok && set.Value != "":
			all = append(all, setting{key, set.Value, set.Origin})
		case defaults[key] != "":
			all = append(all, setting{key, defaults[key], originDefault})
		}
	}
	for _, name := range credentialVariables[login.Credential] {
		overridden := name == "AZURE_CLIENT_ID" && login.Identity.ClientID != name || name == "AZURE_TENANT_ID" && login.Identity.TenantID != name
		if value := os.Getenv(name); value != "" && !overridden {
			all = append(all, setting{name, redact(name, value), name})
		}
	}
	return all
}

// redact returns the value of a variable without secrets.
func redact(name, value string) string {
	if slices.Contains(secretVariables, name) {
		return "REDACTED"
	}
	if !strings.Contains(value, "@") || !slices.Contains(httpVariables, name) {
		return value
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" {
		return "REDACTED"
	}
	return u.Redacted()
}

// byOrigin groups settings by their origin.
func byOrigin(all []setting) []string {
	var origins []string
	groups := map[string][]string{}
	for _, s := range all {
		origin := s.Origin
		if origin == s.Name {
			origin = "environment"
		}
		if groups[origin] == nil {
			origins = append(origins, origin)
		}
		value := s.Value
		if !plain.MatchString(value) {
			value = fmt.Sprintf("%q", value)
		}
		groups[origin] = append(groups[origin], s.Name+"="+value)
	}
	slices.SortStableFunc(origins, func(a, b string) int { return rank(a) - rank(b) })
	lines := make([]string, len(origins))
	for i, origin := range origins {
		lines[i] = origin + ": " + strings.Join(groups[origin], " ")
	}
	return lines
}

// rank orders origins: the DSN first, then the environment, and defaults last.
func rank(origin string) int {
	return slices.Index([]string{"", "environment", originDefault}, origin)
}

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
	f.Settings = settingsOf(login, s.source)
	f.Found = byOrigin(f.Settings)
	if login.Azure && (login.SSLMode == "require" || login.SSLMode == "verify-ca" && !login.Entra()) {
		f.note("sslmode=%s is verify-full for servers of Azure", login.SSLMode)
	}
	if !login.Entra() {
		f.note("the login uses a password, and not Entra")
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
	r, value := remedies(s), s.settings().Value(e.Setting)
	switch e.Setting {
	case "dsn":
		return s.fixDSN()
	case "sslmode":
		if strings.Contains(e.Problem, "sslmode=disable") { // a socket
			return r.set("sslmode", "disable")
		}
		modes := []string{"require", "verify-ca", "verify-full"}
		return r.set("sslmode", closest(value, modes, "verify-full"))
	case "host":
		if strings.HasPrefix(value, "/") {
			return r.set("sslmode", "disable")
		}
		return r.set("host", "SERVER.postgres.database.azure.com")
	case "port":
		return r.set("port", "5432")
	case "connect_timeout":
		return r.set("connect_timeout", cmp.Or(leadingDigits.FindString(value), "10"))
	case "target_session_attrs":
		kinds := []string{"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}
		return r.set("target_session_attrs", closest(value, kinds, "any"))
	case "user", "dbname": // begins or ends with white space
		return r.set(e.Setting, strings.TrimSpace(value))
	case "entra_credential":
		return r.set("entra_credential", closest(value, credentialNames, "default"))
	case "entra_tenant_id", "entra_client_id":
		return s.fixIdentity(e, value)
	case "sslrootcert", "sslcert", "sslkey":
		if path, ok := s.windowsPath(e.Setting); ok {
			return r.set(e.Setting, path)
		}
		if e.Setting == "sslrootcert" && value != "" {
			return append([]string{"# for the roots of the system"}, r.drop(e.Setting)...)
		}
	}
	return r.replace(e.Setting, cmp.Or(alternative(e.Problem), closest(strings.ToLower(e.Setting), knownKeys, "")))
}

var leadingDigits = regexp.MustCompile(`^[1-9][0-9]*`)

// useKey matches the key that an error recommends.
var useKey = regexp.MustCompile(`use ([a-z_]+)(,|;|$)`)

// alternative returns the key that an error recommends, or "".
func alternative(problem string) string {
	if match := useKey.FindStringSubmatch(problem); match != nil && slices.Contains(knownKeys, match[1]) {
		return match[1]
	}
	return ""
}

// fixIdentity returns the lines that fix a setting that chooses an identity.
func (s settingsStep) fixIdentity(e *entrapg.ConfigError, value string) []string {
	r := remedies(s)
	switch {
	case strings.Contains(e.Problem, "is not a tenant"):
		return append([]string{"az account show --query tenantId --output tsv"}, r.set(e.Setting, "TENANT_ID")...)
	case strings.Contains(e.Problem, "is not a client ID"):
		return append([]string{
			"az identity list --query '[].{name:name,clientId:clientId}' --output table",
		}, r.set(e.Setting, "CLIENT_ID")...)
	case strings.Contains(e.Problem, "which reads AZURE_"):
		variable := strings.ToUpper(strings.Replace(e.Setting, "entra_", "azure_", 1))
		lines := append(r.drop(e.Setting), export(variable, value))
		if e.Setting == "entra_client_id" {
			lines = append(lines, "# or, for a managed identity, keep it and choose that credential:")
			lines = append(lines, r.set("entra_credential", "managedidentity")...)
		}
		return lines
	default:
		return r.drop(e.Setting)
	}
}

// credentialNames are the values of entra_credential that name a credential.
var credentialNames = []string{
	"default", "environment", "workloadidentity", "managedidentity", "azurecli", "azuredevelopercli", "azurepowershell", "none",
}

// knownKeys are keys of a DSN that package entrapg accepts.
var knownKeys = slices.Concat(shownSettings, []string{
	"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "options", "search_path", "statement_timeout",
	"lock_timeout", "idle_in_transaction_session_timeout", "default_query_exec_mode", "statement_cache_capacity",
	"pool_max_conns", "pool_min_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time", "pool_health_check_period",
	"fallback_application_name", "ssl_min_protocol_version", "ssl_max_protocol_version",
})

// fixDSN returns the escaped user if a URL contains an unescaped one, otherwise an
// example of a DSN. A URL with a password is not shown.
func (s settingsStep) fixDSN() []string {
	_, rest, ok := strings.Cut(connstring.Clean(s.dsn), "://")
	end := strings.LastIndexByte(strings.Split(rest, "?")[0], '@')
	if !ok || end < 0 || strings.Contains(rest[:end], ":") || !strings.ContainsAny(rest[:end], "@/") {
		return []string{"# for example", "postgres://SERVER.postgres.database.azure.com/DATABASE"}
	}
	user := strings.ReplaceAll(url.QueryEscape(rest[:end]), "+", "%20")
	return []string{comment("# in " + s.origin("user") + ", before the @ of the host"), user}
}

// driveWithoutSeparator matches a path of Windows whose backslashes are lost.
var driveWithoutSeparator = regexp.MustCompile(`^[A-Za-z]:[^\\/]`)

// windowsPath returns the path that key=value settings contain if its backslashes
// are not doubled.
func (s settingsStep) windowsPath(key string) (path string, ok bool) {
	if connstring.IsURL(s.dsn) || !driveWithoutSeparator.MatchString(s.settings().Value(key)) {
		return "", false
	}
	match := regexp.MustCompile(
		`(?:^|\s)` + regexp.QuoteMeta(key) + `\s*=\s*(?:'([A-Za-z]:\\[^']*)'|([A-Za-z]:\\\S*))`,
	).FindStringSubmatch(
		s.dsn,
	)
	if match == nil {
		return "", false
	}
	return match[1] + match[2], true
}
