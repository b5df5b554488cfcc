package entrapgtest

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const imdsAddress = "169.254.169.254"

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

// Environ returns the variables of App Service, in the form NAME=VALUE, with which
// azidentity's credentials request tokens from this host. They contain its secret, which
// each request must contain.
func (h *Host) Environ() []string {
	return []string{"IDENTITY_ENDPOINT=" + h.tenant.site.identityURL + appServicePath, "IDENTITY_HEADER=" + h.secret}
}

// ServiceFabricEnviron returns the variables of Service Fabric, in the form NAME=VALUE.
// They contain the host's secret, and the thumbprint of the endpoint's certificate, by
// which clients verify it.
func (h *Host) ServiceFabricEnviron() []string {
	return []string{
		"IDENTITY_ENDPOINT=" + h.tenant.site.url + serviceFabricPath, "IDENTITY_HEADER=" + h.secret,
		"IDENTITY_SERVER_THUMBPRINT=" + h.tenant.site.thumbprint,
	}
}

// ArcEnviron returns the variables of a machine that is connected by Azure Arc, in the form
// NAME=VALUE. To get a token, a client must prove that it can read a key file. The file is
// always in /var/opt/azcmagent/tokens or, on Windows, in a directory of ProgramData. If this
// process cannot write there, ArcEnviron returns an error. Clients support Azure Arc only
// on Linux and Windows.
func (h *Host) ArcEnviron() ([]string, error) {
	if err := prepareArcKeyDir(); err != nil {
		return nil, fmt.Errorf("entrapgtest: the directory of Azure Arc's key files: %w", err)
	}
	return []string{
		"IDENTITY_ENDPOINT=" + h.tenant.site.identityURL + strings.Replace(arcPath, "{host}", h.id, 1),
		"IMDS_ENDPOINT=" + h.tenant.site.identityURL,
	}, nil
}

// Client returns a client for which 169.254.169.254 is the Instance Metadata Service of
// this host. It sends other requests unchanged, and trusts the tenant's certificate.
// Set it as the Transport of azcore.ClientOptions in the options of azidentity's
// credentials.
func (h *Host) Client() *http.Client { return &http.Client{Transport: imds{h}} }

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

// imds is an HTTP transport in the network of a virtual machine.
type imds struct{ host *Host }

func (i imds) RoundTrip(r *http.Request) (*http.Response, error) {
	site := i.host.tenant.site
	if r.URL.Hostname() != imdsAddress {
		return site.client.Transport.RoundTrip(r)
	}
	sent := r.Clone(r.Context())
	sent.URL.Host = strings.TrimPrefix(site.identityURL, "http://")
	sent.Header.Set(imdsHeader, i.host.secret)
	response, err := site.client.Transport.RoundTrip(sent)
	if err == nil {
		response.Request = r // without the secret, because errors can contain it
	}
	return response, err
}
