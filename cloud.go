package entrapg

import (
	"crypto/x509"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/jackc/pgx/v5/pgconn"
)

// An azureCloud is where Azure Database for PostgreSQL runs. The table follows
// https://learn.microsoft.com/azure/postgresql/security/security-entra-configure
// and the documentation of the national clouds.
type azureCloud struct {
	suffixes   []string // of host names
	scope      string   // of tokens for the database
	management string   // scope of tokens for Azure Resource Manager
	authority  cloud.Configuration
}

// contains reports whether name belongs to one of the cloud's servers.
func (c *azureCloud) contains(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return slices.ContainsFunc(c.suffixes, func(suffix string) bool { return strings.HasSuffix(name, suffix) })
}

// certifies reports whether a certificate is for one of the cloud's servers.
func (c *azureCloud) certifies(certificate *x509.Certificate) bool {
	return slices.ContainsFunc(certificate.DNSNames, c.contains)
}

// certifiesAzure reports whether a certificate is for a server of any cloud.
func certifiesAzure(certificate *x509.Certificate) bool {
	return slices.ContainsFunc(azureClouds, func(c *azureCloud) bool { return c.certifies(certificate) })
}

var publicCloud = &azureCloud{
	suffixes:   []string{".postgres.database.azure.com", ".horizondb.azure.com"},
	scope:      "https://ossrdbms-aad.database.windows.net/.default",
	management: "https://management.azure.com/.default",
	authority:  cloud.AzurePublic,
}

var azureClouds = []*azureCloud{
	publicCloud,
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

// cloudOf returns the cloud of a host, or nil for one outside Azure.
func cloudOf(host string) *azureCloud {
	for _, c := range azureClouds {
		if c.contains(host) {
			return c
		}
	}
	return nil
}

// authorityVariable is azidentity's variable for the URL of Entra.
const authorityVariable = "AZURE_AUTHORITY_HOST"

// cloudOfAuthority returns the cloud whose authority has the given URL, or nil
// for an authority outside Azure.
func cloudOfAuthority(authority string) *azureCloud {
	u, err := url.Parse(authority)
	if err != nil {
		return nil
	}
	for _, c := range azureClouds {
		if own, err := url.Parse(c.authority.ActiveDirectoryAuthorityHost); err == nil && strings.EqualFold(own.Host, u.Host) {
			return c
		}
	}
	return nil
}

// commonCloud returns the cloud of all hosts. A host outside Azure, such as an
// address, fits every cloud. If all are outside, it returns the cloud of
// AZURE_AUTHORITY_HOST, or the public one.
func commonCloud(hosts []string) (*azureCloud, error) {
	var found *azureCloud
	var first string
	for _, host := range hosts {
		switch c := cloudOf(host); {
		case c == nil || c == found:
		case found == nil:
			found, first = c, host
		default:
			return nil, &ConfigError{Setting: "host", Problem: "hosts " + first + " and " + host +
				" belong to different Azure clouds, which accept different tokens; use one connector for each"}
		}
	}
	if found == nil {
		found = cloudOfAuthority(os.Getenv(authorityVariable))
	}
	if found == nil {
		found = publicCloud
	}
	return found, nil
}

// hosts returns all hosts of a configuration.
func hosts(config *pgconn.Config) []string {
	var all []string
	for host := range endpoints(config) {
		all = append(all, host)
	}
	return all
}
