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
	appServicePath = "/msi/token"
	imdsPath       = "/metadata/identity/oauth2/token"
	imdsAddress    = "169.254.169.254"

	appServiceHeader = "X-IDENTITY-HEADER"
	imdsHeader       = "X-Entrapgtest-Host" // what [Host.Client] adds: on Azure, the network tells hosts apart
)

// A Host is a place on Azure that programs run in, an App Service app or a virtual
// machine, with managed identities assigned to it.
type Host struct {
	tenant     *Tenant
	identities []*Principal
	secret     string
}

// NewHost adds a host with user- and system-assigned identities of the tenant. It
// panics on principals that are neither.
func (t *Tenant) NewHost(identities ...*Principal) *Host {
	for _, p := range identities {
		if p == nil || p.tenant != t || p.Kind != UserAssignedIdentity && p.Kind != SystemAssignedIdentity {
			panic("entrapgtest: a host has managed identities of its own tenant alone")
		}
	}
	h := &Host{tenant: t, identities: slices.Clone(identities)}
	t.mu.Lock()
	defer t.mu.Unlock()
	same := 0 // those with the same identities differ
	for _, other := range t.hosts {
		if slices.Equal(other.identities, h.identities) {
			same++
		}
	}
	who := []string{strconv.Itoa(same)}
	for _, p := range identities {
		who = append(who, p.ObjectID)
	}
	h.secret = t.seed.secret("host", who...)
	t.hosts = append(t.hosts, h)
	return h
}

// Environ returns what App Service sets for the programs that run there. Who has
// the secret in it gets tokens; others on the machine do not.
func (h *Host) Environ() []string {
	return []string{"IDENTITY_ENDPOINT=" + h.tenant.identityURL + appServicePath, "IDENTITY_HEADER=" + h.secret}
}

// Client returns a client for which 169.254.169.254 is the Instance Metadata
// Service of this host. It sends other requests to where they are meant, and
// trusts the tenant's certificate. It is for the Transport of azidentity's options.
func (h *Host) Client() *http.Client { return &http.Client{Transport: imds{h}} }

// imds is the network of a virtual machine.
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
		response.Request = r // without the secret, for whoever writes it into an error
	}
	return response, err
}

// What the endpoints of managed identities say for themselves.
var (
	wrongHeader = entraError{
		status: http.StatusUnauthorized, name: "unauthorized",
		message: "The header that names the host is missing or wrong.",
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
	noIdentityAssigned = entraError{
		status:  http.StatusBadRequest,
		message: "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.",
	}
)

// identityEndpoint is App Service's and the Instance Metadata Service in one.
func (t *Tenant) identityEndpoint() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+appServicePath, respond(t.appService, func(_ *http.Request, e entraError) any {
		return map[string]any{"statusCode": e.status, "message": e.Error(), "correlationId": uuid.NewString()}
	}))
	mux.Handle("GET "+imdsPath, respond(t.instanceMetadata, func(_ *http.Request, e entraError) any {
		return map[string]any{"error": e.name, "error_description": e.Error()}
	}))
	return mux
}

// appService answers as it does for api-version 2019-08-01.
func (t *Tenant) appService(r *http.Request) (any, error) {
	body, _, err := t.identityToken(r, appServiceHeader)
	return body, err
}

// instanceMetadata answers as it does for api-version 2018-02-01.
func (t *Tenant) instanceMetadata(r *http.Request) (any, error) {
	if !strings.EqualFold(r.Header.Get("Metadata"), "true") {
		return nil, noMetadataHeader
	}
	body, expires, err := t.identityToken(r, imdsHeader)
	if err != nil {
		return nil, err
	}
	body["not_before"] = strconv.FormatInt(time.Now().Unix(), 10)
	body["expires_in"] = strconv.Itoa(secondsLeft(expires))
	body["ext_expires_in"] = body["expires_in"]
	return body, nil
}

// identityToken answers a request that has a host's secret in a header.
func (t *Tenant) identityToken(r *http.Request, header string) (map[string]string, time.Time, error) {
	h, query := t.hostOf(r.Header.Get(header)), r.URL.Query()
	if h == nil {
		return nil, time.Time{}, wrongHeader
	}
	resource := query.Get("resource")
	if resource == "" {
		return nil, time.Time{}, noResource
	}
	if err := t.ask(r.Context(), resource); err != nil {
		return nil, time.Time{}, err
	}
	p, err := h.choose(query, header == imdsHeader)
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

// choose finds the identity that a request names. Where it names none, the
// system-assigned one is meant, and on a virtual machine without such a one the
// only one there is.
func (h *Host) choose(query url.Values, imds bool) (*Principal, error) {
	found, named := slices.Clone(h.identities), false
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
			named = true
			keep(func(p *Principal) bool { return strings.EqualFold(id(p), wanted) })
		}
	}
	isSystem := func(p *Principal) bool { return p.Kind == SystemAssignedIdentity }
	if !named && (!imds || slices.ContainsFunc(found, isSystem)) {
		keep(isSystem)
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case !imds:
		return nil, noIdentityAssigned
	case len(found) == 0:
		return nil, identityNotFound
	default:
		return nil, manyIdentities
	}
}
