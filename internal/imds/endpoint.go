package imds

import (
	"net/netip"
	"net/url"
	"os"
	"strings"
)

// isMetadata reports whether host serves metadata endpoints: a link-local
// address, or the host of an endpoint that App Service, Container Apps, Azure
// Machine Learning and others announce in the environment. A proxy would answer
// for another machine, or not at all, and would see the identity header.
func isMetadata(host string) bool {
	if address, err := netip.ParseAddr(host); err == nil && address.Unmap().IsLinkLocalUnicast() {
		return true
	}
	for _, name := range []string{"IDENTITY_ENDPOINT", "MSI_ENDPOINT"} {
		endpoint, err := url.Parse(os.Getenv(name))
		if err == nil && endpoint.Host != "" && strings.EqualFold(endpoint.Hostname(), host) {
			return true
		}
	}
	return false
}
