package imds

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
)

// variables are the environment variables that contain endpoints. Azure Arc sets the
// first and the last.
var variables = []string{"IDENTITY_ENDPOINT", "MSI_ENDPOINT", "IMDS_ENDPOINT"}

// CheckEnvironment returns an error if the endpoint in the environment is not a URL. A
// console of App Service can set a placeholder instead.
func CheckEnvironment() error {
	name := "IDENTITY_ENDPOINT"
	switch {
	case os.Getenv(name) != "" && os.Getenv("IDENTITY_HEADER") != "":
	case os.Getenv("MSI_ENDPOINT") != "":
		name = "MSI_ENDPOINT"
	case os.Getenv("IMDS_ENDPOINT") == "": // without it, IDENTITY_ENDPOINT is not used
		return nil
	}
	value := os.Getenv(name)
	endpoint, err := url.Parse(value)
	if value == "" || err == nil && endpoint.Host != "" && (endpoint.Scheme == "http" || endpoint.Scheme == "https") {
		return nil
	}
	return fmt.Errorf("%s is %q, which is not a URL; a console of App Service can set a placeholder, "+
		"so run the program in the app itself", name, value)
}

// isMetadata reports whether host serves metadata endpoints: a link-local
// address, or the host of an endpoint that App Service, Container Apps, Azure
// Machine Learning and others set in the environment. Through a proxy, a
// request would reach another machine or none, and the proxy could read the
// identity header.
func isMetadata(host string) bool {
	if address, err := netip.ParseAddr(host); err == nil && address.Unmap().IsLinkLocalUnicast() {
		return true
	}
	for _, name := range variables {
		endpoint, err := url.Parse(os.Getenv(name))
		if err == nil && endpoint.Host != "" && strings.EqualFold(endpoint.Hostname(), host) {
			return true
		}
	}
	return false
}
