package entrapgtest

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	appServiceHeader = "X-IDENTITY-HEADER"
	imdsHeader       = "X-Entrapgtest-Host" // added by [Host.Client]: on Azure, the network identifies the host
)

// An identityEndpoint issues tokens to the managed identities of hosts.
type identityEndpoint struct{ tenant *Tenant }

// An identityAPI is a variant of the API for tokens of managed identities.
type identityAPI struct {
	since   string // the first api-version
	machine bool   // the default identity is the only user-assigned one if no other is assigned
}

// appService answers as App Service does from api-version 2019-08-01 on.
func (e identityEndpoint) appService(r *http.Request) (any, error) {
	body, _, err := e.token(r, e.tenant.directory.hostWithSecret(r.Header.Get(appServiceHeader)), identityAPI{since: "2019-08-01"})
	return body, err
}

// instanceMetadata answers as IMDS does from api-version 2018-02-01 on.
func (e identityEndpoint) instanceMetadata(r *http.Request) (any, error) {
	if !strings.EqualFold(r.Header.Get("Metadata"), "true") {
		return nil, noMetadataHeader
	}
	body, expires, err := e.token(r, e.tenant.directory.hostWithSecret(r.Header.Get(imdsHeader)),
		identityAPI{since: "2018-02-01", machine: true})
	if err != nil {
		return nil, err
	}
	body["not_before"] = strconv.FormatInt(time.Now().Unix(), 10)
	body["expires_in"] = strconv.Itoa(secondsLeft(expires))
	body["ext_expires_in"] = body["expires_in"]
	return body, nil
}

// serviceFabric answers as Service Fabric does: clients do not select an identity, but
// the cluster's configuration does.
func (e identityEndpoint) serviceFabric(r *http.Request) (any, error) {
	body, _, err := e.token(r, e.tenant.directory.hostWithSecret(r.Header.Get("Secret")), identityAPI{since: "2019-07-01", machine: true})
	return body, err
}

// token answers a token request of a host. The host is nil if the secret is
// wrong.
func (e identityEndpoint) token(r *http.Request, h *Host, api identityAPI) (map[string]string, time.Time, error) {
	if h == nil {
		return nil, time.Time{}, wrongHeader
	}
	query := r.URL.Query()
	version := strings.TrimSuffix(query.Get("api-version"), "-preview")
	if date, err := time.Parse(time.DateOnly, version); err != nil || version < api.since || date.After(time.Now()) {
		return nil, time.Time{}, noAPIVersion
	}
	resource := query.Get("resource")
	if resource == "" {
		return nil, time.Time{}, noResource
	}
	if err := e.tenant.tokens.begin(r.Context(), resource); err != nil {
		return nil, time.Time{}, err
	}
	if err := e.tenant.tokens.faults.get().Identity.failure(api); err != nil {
		return nil, time.Time{}, err
	}
	p, err := h.choose(query, api.machine)
	if err != nil {
		return nil, time.Time{}, err
	}
	token, err := e.tenant.tokens.issue(p, p.ClientID, resource)
	return map[string]string{
		"access_token": token.Token, "client_id": p.ClientID, "resource": resource, "token_type": "Bearer",
		"expires_on": strconv.FormatInt(token.ExpiresOn.Unix(), 10),
	}, token.ExpiresOn, err
}

func appServiceBody(_ *http.Request, e entraError) any {
	return map[string]any{"statusCode": e.status, "message": e.Error(), "correlationId": uuid.NewString()}
}

func imdsBody(_ *http.Request, e entraError) any {
	if e == noAPIVersion {
		return map[string]any{"error": e.name, "newest-versions": []string{"2021-12-13", "2021-11-15", "2021-11-01"}}
	}
	return map[string]any{"error": e.name, "error_description": e.Error()}
}

func serviceFabricBody(_ *http.Request, e entraError) any {
	return map[string]any{"error": map[string]any{"code": e.name, "correlationId": uuid.NewString(), "message": e.Error()}}
}

// Error messages of managed identity endpoints.
var (
	wrongHeader = entraError{
		status: http.StatusUnauthorized, name: "unauthorized",
		message: "The header that identifies the host is missing or wrong.",
	}
	noMetadataHeader = entraError{
		status: http.StatusBadRequest, name: "bad_request_102",
		message: "Required metadata header not specified",
	}
	noResource = entraError{
		status: http.StatusBadRequest, name: "invalid_request",
		message: "Required query variable 'resource' is missing",
	}
	identityNotFound = entraError{
		status: http.StatusBadRequest, name: "invalid_request",
		message: "Identity not found",
	}
	manyIdentities = entraError{
		status: http.StatusBadRequest, name: "invalid_request",
		message: "Multiple user assigned identities exist, please specify the clientId / resourceId of the " +
			"identity in the token request",
	}
	noAPIVersion = entraError{
		status: http.StatusBadRequest,
		name:   "Bad request. api-version is invalid or was not specified in the request. For more information refer to aka.ms/azureimds",
		// App Service's message is not publicly known.
		message: "The api-version is invalid or was not specified in the request.",
	}
	// The statuses and descriptions are those of the documentation; the names of 404,
	// 410 and 429 are not publicly known.
	// https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
	identityStarting  = entraError{status: http.StatusNotFound, name: "not_found", message: "IMDS endpoint is updating."}
	identityUpdating  = entraError{status: http.StatusGone, name: "gone", message: "IMDS is going through updates."}
	identityThrottled = entraError{
		status: http.StatusTooManyRequests, name: "too_many_requests",
		message: "IMDS Throttle limit reached.",
	}
	identityServerError = entraError{
		status: http.StatusInternalServerError, name: "unknown",
		message: "Failed to retrieve token from the Active directory. For details see logs in /var/log/waagent.log",
	}
	noIdentityAssigned = entraError{
		status:  http.StatusBadRequest,
		message: "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.",
	}
)
