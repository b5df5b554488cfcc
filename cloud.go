package entrapg

import (
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/jackc/pgx/v5/pgconn"
)

// azureCloud is what Azure Database for PostgreSQL is called in one cloud.
// The table follows https://learn.microsoft.com/azure/postgresql/security/security-entra-configure
// and the documentation of the national clouds.
type azureCloud struct {
	suffixes   []string // of server names
	scope      string   // for logins to the database
	management string   // scope for Azure Resource Manager
	authority  cloud.Configuration
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
	{ // Azure Cosmos DB for PostgreSQL lives in the public cloud with a scope of its own.
		suffixes:   []string{".postgres.cosmos.azure.com"},
		scope:      "https://token.postgres.cosmos.azure.com/.default",
		management: "https://management.azure.com/.default",
		authority:  cloud.AzurePublic,
	},
}

// cloudOf returns the cloud that a server's name belongs to, nil for a name outside Azure.
func cloudOf(host string) *azureCloud {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	for _, c := range azureClouds {
		if slices.ContainsFunc(c.suffixes, func(suffix string) bool { return strings.HasSuffix(name, suffix) }) {
			return c
		}
	}
	return nil
}

// authorityVariable is azidentity's: the host to ask for tokens.
const authorityVariable = "AZURE_AUTHORITY_HOST"

// cloudOfAuthority returns the cloud whose authority a URL names, nil for one
// that is none of Azure's.
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

// commonCloud returns the one cloud that all hosts belong to. A host outside
// Azure, such as an address or a name of a tunnel, fits every cloud; with no
// other it is that of AZURE_AUTHORITY_HOST, or the public one.
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
				" belong to different Azure clouds, and no token is good for both: use one connector for each"}
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

// addresses lists where all the hosts are.
func addresses(config *pgconn.Config) []string {
	all := []string{net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))}
	for _, f := range config.Fallbacks {
		all = append(all, net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))))
	}
	return all
}

// hosts names all the hosts of a configuration.
func hosts(config *pgconn.Config) []string {
	all := []string{config.Host}
	for _, f := range config.Fallbacks {
		all = append(all, f.Host)
	}
	return all
}
