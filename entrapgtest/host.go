package entrapgtest

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	appServicePath    = "/msi/token"
	imdsPath          = "/metadata/identity/oauth2/token"
	serviceFabricPath = "/managedidentity/token"
	imdsAddress       = "169.254.169.254"

	appServiceHeader = "X-IDENTITY-HEADER"
	imdsHeader       = "X-Entrapgtest-Host" // added by [Host.Client]: on Azure, the network identifies the host
)

// A Host runs programs and has managed identities assigned. It is an App Service app
// ([Host.Environ]), a virtual machine ([Host.Client]), a machine that is connected by
// Azure Arc ([Host.ArcEnviron]), or a Service Fabric application
// ([Host.ServiceFabricEnviron]).
type Host struct {
	tenant     *Tenant
	identities []*Principal
	secret     string
	id         string // not a secret
}

// NewHost adds a host with user- and system-assigned identities of the tenant. It
// panics if a principal is of another kind or tenant.
func (t *Tenant) NewHost(identities ...*Principal) *Host {
	for _, p := range identities {
		if p == nil || p.tenant != t || p.Kind != UserAssignedIdentity && p.Kind != SystemAssignedIdentity {
			panic("entrapgtest: a host accepts only managed identities of its own tenant")
		}
	}
	h := &Host{tenant: t, identities: slices.Clone(identities)}
	t.mu.Lock()
	defer t.mu.Unlock()
	same := 0 // so that hosts with the same identities get different secrets
	for _, other := range t.hosts {
		if slices.Equal(other.identities, h.identities) {
			same++
		}
	}
	names := []string{strconv.Itoa(same)}
	for _, p := range identities {
		names = append(names, p.ObjectID)
	}
	h.secret = t.seed.secret("host", names...)
	h.id = strconv.Itoa(len(t.hosts))
	t.hosts = append(t.hosts, h)
	return h
}

// Environ returns the variables of App Service, with which azidentity's credentials
// request tokens from this host. They contain its secret, which each request must
// contain.
func (h *Host) Environ() []string {
	return []string{"IDENTITY_ENDPOINT=" + h.tenant.identityURL + appServicePath, "IDENTITY_HEADER=" + h.secret}
}

// ServiceFabricEnviron returns the variables of Service Fabric. Clients verify the
// endpoint's certificate by its thumbprint.
func (h *Host) ServiceFabricEnviron() []string {
	return []string{
		"IDENTITY_ENDPOINT=" + h.tenant.url + serviceFabricPath, "IDENTITY_HEADER=" + h.secret,
		"IDENTITY_SERVER_THUMBPRINT=" + h.tenant.thumbprint,
	}
}

// Client returns a client for which 169.254.169.254 is the Instance Metadata Service of
// this host. It sends other requests unchanged, and trusts the tenant's certificate.
// Set it as the Transport in azidentity's options.
func (h *Host) Client() *http.Client { return &http.Client{Transport: imds{h}} }

// imds is an HTTP transport in the network of a virtual machine.
type imds struct{ host *Host }

func (i imds) RoundTrip(r *http.Request) (*http.Response, error) {
	t := i.host.tenant
	if r.URL.Hostname() != imdsAddress {
		return t.client.Transport.RoundTrip(r)
	}
	sent := r.Clone(r.Context())
	sent.URL.Host = strings.TrimPrefix(t.identityURL, "http://")
	sent.Header.Set(imdsHeader, i.host.secret)
	response, err := t.client.Transport.RoundTrip(sent)
	if err == nil {
		response.Request = r // without the secret, because errors can contain it
	}
	return response, err
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
	identityStarts    = entraError{status: http.StatusNotFound, name: "not_found", message: "IMDS endpoint is updating."}
	identityUpdates   = entraError{status: http.StatusGone, name: "gone", message: "IMDS is going through updates."}
	identityThrottles = entraError{
		status: http.StatusTooManyRequests, name: "too_many_requests",
		message: "IMDS Throttle limit reached.",
	}
	identityFails = entraError{
		status: http.StatusInternalServerError, name: "unknown",
		message: "Failed to retrieve token from the Active directory. For details see logs in /var/log/waagent.log",
	}
	noIdentityAssigned = entraError{
		status:  http.StatusBadRequest,
		message: "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.",
	}
)

// identityEndpoint serves the APIs of App Service, IMDS and Azure Arc over HTTP.
func (t *Tenant) identityEndpoint() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+appServicePath, respond(t.appService, appServiceBody))
	mux.Handle("GET "+imdsPath, respond(t.instanceMetadata, imdsBody))
	mux.Handle("GET "+arcPath, t.arcEndpoint())
	return mux
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

// appService answers as App Service does from api-version 2019-08-01 on.
func (t *Tenant) appService(r *http.Request) (any, error) {
	body, _, err := t.identityToken(r, t.hostOf(r.Header.Get(appServiceHeader)), identityAPI{since: "2019-08-01"})
	return body, err
}

// instanceMetadata answers as IMDS does from api-version 2018-02-01 on.
func (t *Tenant) instanceMetadata(r *http.Request) (any, error) {
	if !strings.EqualFold(r.Header.Get("Metadata"), "true") {
		return nil, noMetadataHeader
	}
	body, expires, err := t.identityToken(r, t.hostOf(r.Header.Get(imdsHeader)),
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
func (t *Tenant) serviceFabric(r *http.Request) (any, error) {
	body, _, err := t.identityToken(r, t.hostOf(r.Header.Get("Secret")), identityAPI{since: "2019-07-01", machine: true})
	return body, err
}

// An identityAPI is a variant of the API for tokens of managed identities.
type identityAPI struct {
	since   string // the first api-version
	machine bool   // the default identity is the only user-assigned one if no other is assigned
}

// identityToken answers a token request of a host. The host is nil if the secret is
// wrong.
func (t *Tenant) identityToken(r *http.Request, h *Host, api identityAPI) (map[string]string, time.Time, error) {
	if h == nil {
		return nil, time.Time{}, wrongHeader
	}
	query := r.URL.Query()
	version := strings.TrimSuffix(query.Get("api-version"), "-preview")
	if _, err := time.Parse(time.DateOnly, version); err != nil || version < api.since {
		return nil, time.Time{}, noAPIVersion
	}
	resource := query.Get("resource")
	if resource == "" {
		return nil, time.Time{}, noResource
	}
	if err := t.beginRequest(r.Context(), resource); err != nil {
		return nil, time.Time{}, err
	}
	if err := t.fault().Identity.failure(api); err != nil {
		return nil, time.Time{}, err
	}
	p, err := h.choose(query, api.machine)
	if err != nil {
		return nil, time.Time{}, err
	}
	token, err := t.issue(p, p.ClientID, resource)
	return map[string]string{
		"access_token": token.Token, "client_id": p.ClientID, "resource": resource, "token_type": "Bearer",
		"expires_on": strconv.FormatInt(token.ExpiresOn.Unix(), 10),
	}, token.ExpiresOn, err
}

func (t *Tenant) hostOf(secret string) *Host {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.hosts {
		if sameSecret(secret, h.secret) {
			return h
		}
	}
	return nil
}

func (t *Tenant) hostWithID(id string) *Host {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.IndexFunc(t.hosts, func(h *Host) bool { return h.id == id }); i >= 0 {
		return t.hosts[i]
	}
	return nil
}

// choose returns the identity that a request selects. The default is the
// system-assigned identity or, on a machine without one, its only identity.
func (h *Host) choose(query url.Values, machine bool) (*Principal, error) {
	found, selected := slices.Clone(h.identities), false
	keep := func(is func(*Principal) bool) {
		found = slices.DeleteFunc(found, func(p *Principal) bool { return !is(p) })
	}
	for name, id := range map[string]func(*Principal) string{
		"client_id":    func(p *Principal) string { return p.ClientID },
		"object_id":    func(p *Principal) string { return p.ObjectID },
		"principal_id": func(p *Principal) string { return p.ObjectID },
		"mi_res_id":    func(p *Principal) string { return p.ResourceID },
		"msi_res_id":   func(p *Principal) string { return p.ResourceID },
	} {
		if wanted := query.Get(name); wanted != "" {
			selected = true
			keep(func(p *Principal) bool { return strings.EqualFold(id(p), wanted) })
		}
	}
	isSystem := func(p *Principal) bool { return p.Kind == SystemAssignedIdentity }
	if !selected && (!machine || slices.ContainsFunc(found, isSystem)) {
		keep(isSystem)
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case !machine:
		return nil, noIdentityAssigned
	case len(found) == 0:
		return nil, identityNotFound
	default:
		return nil, manyIdentities
	}
}
