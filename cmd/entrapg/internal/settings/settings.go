// Package settings lists the settings of a login that are in effect, and where each
// comes from.
package settings

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
)

// A Setting is a setting in effect. Its origin is "DSN", "argument", "--dsn", an
// environment variable, "service NAME in FILE", or "default".
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
}

// originDefault is the origin of a setting that is not set.
const originDefault = "default"

// Keys are the DSN's keys that are shown. Any other key could be a piece of
// an unquoted password.
var Keys = []string{
	"host", "hostaddr", "port", "dbname", "user", "service", "servicefile",
	"sslmode", "sslrootcert", "sslcert", "sslkey", "sslcertmode", "sslsni", "sslnegotiation",
	"target_session_attrs", "connect_timeout", "application_name", "channel_binding", "require_auth", "passfile",
	"min_protocol_version", "max_protocol_version", "timezone",
	"entra_credential", "entra_client_id", "entra_tenant_id", "entra_scope",
}

// Variables that azidentity reads.
var (
	httpVariables = []string{
		"AZURE_AUTHORITY_HOST", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY",
		"http_proxy", "NO_PROXY", "no_proxy",
	}
	identityVariables = []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET", "IMDS_ENDPOINT"}
	clientVariables   = []string{
		"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH",
		"AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_USERNAME", "AZURE_PASSWORD",
	}

	credentialVariables = map[string][]string{
		"DefaultAzureCredential": slices.Concat(
			[]string{"AZURE_TOKEN_CREDENTIALS"}, clientVariables, []string{"AZURE_FEDERATED_TOKEN_FILE"},
			identityVariables, httpVariables,
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

// InEffect lists the settings of a login that are in effect. source is the origin of
// the DSN.
func InEffect(login *inspect.Login, source string) []Setting {
	if source == "" {
		source = connstring.OriginDSN
	}
	defaults := map[string]string{"sslmode": login.SSLMode, "entra_credential": "default"}
	if login.Config.Host != "" && !strings.HasPrefix(login.Config.Host, "/") {
		defaults["port"] = fmt.Sprint(login.Config.Port)
	}
	var all []Setting
	for _, key := range Keys {
		set, ok := login.Settings[key]
		switch {
		case ok && set.Origin == connstring.OriginDSN:
			all = append(all, Setting{key, set.Value, source})
		case ok && set.Value != "":
			all = append(all, Setting{key, set.Value, set.Origin})
		case defaults[key] != "":
			all = append(all, Setting{key, defaults[key], originDefault})
		}
	}
	for _, name := range credentialVariables[login.Credential] {
		overridden := name == "AZURE_CLIENT_ID" && login.Identity.ClientID != name ||
			name == "AZURE_TENANT_ID" && login.Identity.TenantID != name
		if value := os.Getenv(name); value != "" && !overridden {
			all = append(all, Setting{name, redact(name, value), name})
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

// ByOrigin groups settings by their origin.
func ByOrigin(all []Setting) []string {
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
		if !quote.IsPlain(value) {
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
