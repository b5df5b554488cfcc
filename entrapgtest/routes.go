package entrapgtest

import (
	"net/http"
	"strings"
)

const (
	serviceFabricPath = "/managedidentity/token"
	appServicePath    = "/msi/token"
	imdsPath          = "/metadata/identity/oauth2/token"

	// arcPath has the ID of a host instead of a secret: on Azure Arc, every program that
	// can read the key file gets tokens.
	arcPath = "/arc/{host}/metadata/identity/oauth2/token"
)

// entraRoutes emulate login.microsoftonline.com, over HTTPS. Service Fabric's endpoint is
// among them because it uses HTTPS, too.
func entraRoutes(t *Tenant) http.Handler {
	d := discovery{t}
	mux := http.NewServeMux()
	mux.Handle("GET /{tenant}/v2.0/.well-known/openid-configuration", d.document(d.configuration))
	mux.Handle("GET /{tenant}/discovery/v2.0/keys", d.document(d.keys))
	mux.Handle("GET /common/discovery/instance", d.document(d.instance))
	mux.Handle("GET /common/userrealm/{upn}", d.document(d.realm))
	mux.Handle("GET "+serviceFabricPath, respond(identityEndpoint{t}.serviceFabric, serviceFabricBody))
	mux.Handle("POST /{tenant}/oauth2/v2.0/token", respond(tokenEndpoint{t}.token, entraBody))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path, r.URL.RawPath = strings.ToLower(r.URL.Path), strings.ToLower(r.URL.RawPath)
		mux.ServeHTTP(w, r)
	})
}

// identityRoutes are the managed identity endpoints over plain HTTP: those of App
// Service, IMDS and Azure Arc.
func identityRoutes(t *Tenant) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+appServicePath, respond(identityEndpoint{t}.appService, appServiceBody))
	mux.Handle("GET "+imdsPath, respond(identityEndpoint{t}.instanceMetadata, imdsBody))
	mux.Handle("GET "+arcPath, arcEndpoint{t})
	return mux
}
