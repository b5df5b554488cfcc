package entrapg

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
)

// An azureService is a PostgreSQL service in one of Azure's clouds. The table follows
// https://learn.microsoft.com/azure/postgresql/security/security-entra-configure
// and the documentation of the national clouds.
type azureService struct {
	suffixes   []string // of host names
	scope      string   // of tokens for the database
	management string   // scope of tokens for Azure Resource Manager
	authority  cloud.Configuration
}

// contains reports whether name belongs to one of the service's servers.
func (s *azureService) contains(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return slices.ContainsFunc(s.suffixes, func(suffix string) bool { return strings.HasSuffix(name, suffix) })
}

// certifies reports whether a certificate is for one of the service's servers.
func (s *azureService) certifies(certificate *x509.Certificate) bool {
	return slices.ContainsFunc(certificate.DNSNames, s.contains)
}

// certifiesAzure reports whether a certificate is for a server of any Azure service.
func certifiesAzure(certificate *x509.Certificate) bool {
	return slices.ContainsFunc(azureServices, func(s *azureService) bool { return s.certifies(certificate) })
}

var publicService = &azureService{
	suffixes:   []string{".postgres.database.azure.com", ".horizondb.azure.com"},
	scope:      "https://ossrdbms-aad.database.windows.net/.default",
	management: "https://management.azure.com/.default",
	authority:  cloud.AzurePublic,
}

var azureServices = []*azureService{
	publicService,
	{
		suffixes:   []string{".postgres.database.usgovcloudapi.net"},
		scope:      "https://ossrdbms-aad.database.usgovcloudapi.net/.default",
		management: "https://management.usgovcloudapi.net/.default",
		authority:  cloud.AzureGovernment,
	},
	{
		suffixes:   []string{".postgres.database.chinacloudapi.cn"},
		scope:      "https://ossrdbms-aad.database.chinacloudapi.cn/.default",
		management: "https://management.chinacloudapi.cn/.default",
		authority:  cloud.AzureChina,
	},
	{ // Azure Cosmos DB for PostgreSQL has its own scope in the public cloud.
		suffixes:   []string{".postgres.cosmos.azure.com"},
		scope:      "https://token.postgres.cosmos.azure.com/.default",
		management: "https://management.azure.com/.default",
		authority:  cloud.AzurePublic,
	},
}

// serviceOf returns the service that a host belongs to, or nil outside Azure.
func serviceOf(host string) *azureService {
	for _, s := range azureServices {
		if s.contains(host) {
			return s
		}
	}
	return nil
}

// authorityVariable is azidentity's variable for the URL of Entra.
const authorityVariable = "AZURE_AUTHORITY_HOST"

// serviceOfAuthority returns Azure Database for PostgreSQL in the cloud whose
// authority has the given URL, or nil for an authority outside Azure.
func serviceOfAuthority(authority string) *azureService {
	u, err := url.Parse(authority)
	if err != nil {
		return nil
	}
	for _, s := range azureServices {
		if own, err := url.Parse(s.authority.ActiveDirectoryAuthorityHost); err == nil &&
			strings.EqualFold(own.Host, u.Host) {
			return s
		}
	}
	return nil
}

// commonService returns the service that all hosts belong to, or an error if they
// belong to different ones. It ignores hosts outside Azure, such as addresses. If
// all are outside, it returns the service of AZURE_AUTHORITY_HOST, or the public
// one.
func commonService(hosts []string) (*azureService, error) {
	var found *azureService
	var first string
	for _, host := range hosts {
		switch s := serviceOf(host); {
		case s == nil || s == found:
		case found == nil:
			found, first = s, host
		default:
			return nil, &ConfigError{Setting: "host", Problem: fmt.Sprintf("hosts %q and %q belong to different "+
				"Azure clouds or services, which accept different tokens; use one connector for each", first, host)}
		}
	}
	if found == nil {
		found = serviceOfAuthority(os.Getenv(authorityVariable))
	}
	if found == nil {
		found = publicService
	}
	return found, nil
}
