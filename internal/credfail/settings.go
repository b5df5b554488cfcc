package credfail

import "strings"

// Settings are the names of the settings that select an identity: keys of the DSN or
// environment variables. The zero value stands for both.
type Settings struct {
	ClientID string // such as "entra_client_id"
	TenantID string // such as "AZURE_TENANT_ID"
}

// Placeholders for the settings in hints.
const (
	clientID = "{client ID}"
	tenantID = "{tenant ID}"
)

// name replaces the placeholders in a hint by the names of the settings.
func (s Settings) name(hint string) string {
	if s.ClientID == "" {
		s.ClientID = "entra_client_id or AZURE_CLIENT_ID"
	}
	if s.TenantID == "" {
		s.TenantID = "entra_tenant_id or AZURE_TENANT_ID"
	}
	return strings.NewReplacer(clientID, s.ClientID, tenantID, s.TenantID).Replace(hint)
}
