package credfail

import "github.com/entrapg/entrapg/internal/imds"

// codes are Entra's error codes, without AADSTS.
var codes = map[string]Diagnosis{
	"7000215": {WrongSecret, "the client secret is wrong; use the secret's value, not its ID"},
	"7000222": {ExpiredSecret, "the client secret has expired; create another one"},
	"700027": {
		UnregisteredCertificate,
		"the certificate is not registered with the application; add it there, or use another one",
	},
	"7000218": {
		MissingClientCredential,
		"the application must authenticate; set AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH",
	},
	"700024": {
		InvalidAssertion,
		"the client assertion is not valid now; check the clock of this machine, " +
			"and that the file with the federated token is still updated",
	},
	"50027":  {InvalidAssertion, "the client assertion is not a token; check AZURE_FEDERATED_TOKEN_FILE"},
	"70021":  notFederated,
	"700211": notFederated,
	"700212": notFederated,
	"700213": notFederated,
	"700016": {UnknownApplication, "the tenant has no such application; check " + clientID + " and " + tenantID},
	"90002": {
		UnknownTenant,
		"the cloud has no such tenant; check " + tenantID + ", and AZURE_AUTHORITY_HOST in national clouds",
	},
	"500011": {
		UnknownResource,
		"the tenant does not know the resource that the scope names; " +
			"omit entra_scope, or use the scope of the tenant's cloud",
	},
	"70011":   invalidScope,
	"1002012": invalidScope,
	"50074":   needsSecondFactor,
	"50076":   needsSecondFactor,
	"50079":   needsSecondFactor,
	"53003": {
		BlockedByPolicy,
		"a conditional access policy of the tenant blocks this login; ask its administrator, or log in from elsewhere",
	},
	"70008":  loginExpired,
	"70043":  loginExpired,
	"700082": loginExpired,
	"50173":  {LoginExpired, "the login on this machine was revoked; log in again"},
	"50126":  {WrongPassword, "the user's name or password is wrong; check AZURE_USERNAME and AZURE_PASSWORD"},
	"50034":  {UnknownUser, "the tenant has no such user; check AZURE_USERNAME and " + tenantID},
	"90055":  throttled,
	"90033":  serviceFailed,
	"50000":  serviceFailed,
}

// A message is a fragment of an error's text and its diagnosis.
type message struct {
	fragment  string
	inChain   bool // it also matches in a chain without an identity
	diagnosis Diagnosis
}

var noEndpoint = Diagnosis{
	NoEndpoint,
	"this machine has no managed identity; run the program on an Azure host that has one, or use another credential",
}

// messages are those of azidentity, of managed identity endpoints, of developer
// tools and of Go. The first match wins. Only the text can be matched, because
// azidentity does not wrap its causes.
var messages = []message{
	{"Multiple user assigned identities", true, Diagnosis{
		SeveralIdentities,
		"this host has several managed identities; set " + clientID + " to the client ID of one",
	}},
	{"No User Assigned or Delegated Managed Identity found", true, noSuchIdentity}, // App Service
	{"Identity not found", true, noSuchIdentity},                                   // Instance Metadata Service
	{"isn't assigned to this resource", true, noSuchIdentity},                      // azidentity
	{"empty managedidentity.UserAssignedClientID", true, Diagnosis{
		NotConfigured,
		"AZURE_CLIENT_ID is set to an empty value; set it to the client ID of a managed identity, or remove it",
	}},
	{imds.NoEndpoint, false, noEndpoint},
	{imds.NotAzure, false, noEndpoint},

	{"proxyconnect", false, proxy},
	{"Proxy Authentication Required", false, proxy},
	{"certificate signed by unknown authority", false, untrustedCertificate},
	{"certificate is not trusted", false, untrustedCertificate}, // macOS
	{"no such host", false, unreachable},
	{"server misbehaving", false, unreachable},
	{"network is unreachable", false, unreachable},
	{"no route to host", false, unreachable},
	{"connection reset", false, interrupted},
	{"forcibly closed", false, interrupted}, // Windows
	{"connection refused", false, unreachable},
	{"actively refused", false, unreachable}, // Windows

	{"az login", true, Diagnosis{NotLoggedIn, "the Azure CLI is not logged in; run az login"}},
	{"azd auth login", true, Diagnosis{NotLoggedIn, "the Azure Developer CLI is not logged in; run azd auth login"}},
	{"Connect-AzAccount", true, Diagnosis{NotLoggedIn, "Azure PowerShell is not logged in; run Connect-AzAccount"}},
	{"AzureCLICredential: executable not found on path", false, Diagnosis{
		AzureCLIMissing,
		"the Azure CLI is not installed or not on PATH; install it, or use another credential",
	}},
	{"AzureDeveloperCLICredential: executable not found on path", false, Diagnosis{
		ToolMissing,
		"the Azure Developer CLI is not installed or not on PATH; install it, or use another credential",
	}},
	{"AzurePowerShellCredential: executable not found on path", false, Diagnosis{
		ToolMissing,
		"PowerShell is not installed or not on PATH; install it, or use another credential",
	}},
	{"Az.Accounts module not found", false, Diagnosis{
		ToolMissing,
		"PowerShell has no module Az.Accounts; install it with Install-Module Az.Accounts",
	}},

	{"missing environment variable", false, environment},
	{"incomplete environment variable configuration", false, environment},
	{"no value for AZURE_PASSWORD", false, environment},
	{"no client ID specified", false, workloadIdentity},
	{"no tenant ID specified", false, workloadIdentity},
	{"no token file specified", false, workloadIdentity},
	{"invalid AZURE_TOKEN_CREDENTIALS value", false, Diagnosis{
		NotConfigured,
		"AZURE_TOKEN_CREDENTIALS is invalid; set it to dev, prod or the name of one credential, or remove it",
	}},

	{"no answer within", false, Diagnosis{
		NoAnswer,
		"Entra or the managed identity endpoint does not answer; check the network, and HTTPS_PROXY if there is a proxy",
	}},
}

var (
	notFederated = Diagnosis{
		NotFederated,
		"no federated credential of the identity matches this workload; " +
			"its issuer, subject and audience must be those of the workload's token",
	}
	invalidScope = Diagnosis{
		InvalidScope,
		"the scope is invalid; entra_scope must be a resource followed by /.default",
	}
	needsSecondFactor = Diagnosis{
		NeedsSecondFactor,
		"the tenant requires a second factor, which only a user can provide; " +
			"log in again with it, or use a managed identity or a service principal",
	}
	loginExpired  = Diagnosis{LoginExpired, "the login on this machine has expired; log in again"}
	throttled     = Diagnosis{Throttled, "too many token requests; wait a minute"}
	serviceFailed = Diagnosis{
		ServiceFailed,
		"Entra or the managed identity endpoint is temporarily unavailable; try again in a minute",
	}
	noSuchIdentity = Diagnosis{
		NoSuchIdentity,
		"this host does not have the managed identity that " + clientID +
			" names, or no system-assigned one if that is not set; " +
			"assign it, or set " + clientID + " to the client ID of one that the host has",
	}
	untrustedCertificate = Diagnosis{
		UntrustedCertificate,
		"this machine does not trust the certificate that Entra's host presents; " +
			"install the system's root certificates, or that of the proxy that inspects TLS",
	}
	unreachable = Diagnosis{
		Unreachable,
		"Entra cannot be reached; check the network, and HTTPS_PROXY if there is a proxy",
	}
	interrupted = Diagnosis{
		Unreachable,
		"the connection to Entra or the managed identity endpoint broke; " +
			"check the network, and HTTPS_PROXY if there is a proxy",
	}
	proxy = Diagnosis{
		Proxy,
		"the HTTP proxy cannot be used; check HTTPS_PROXY and HTTP_PROXY, or add Entra's host to NO_PROXY",
	}
	staleSecret = Diagnosis{
		StaleSecret,
		"the managed identity endpoint rejects IDENTITY_HEADER, which changes when the host restarts; " +
			"reload the environment of this shell, or restart the program",
	}
	staleEndpoint = Diagnosis{
		StaleEndpoint,
		"nothing answers at the managed identity endpoint that IDENTITY_ENDPOINT or MSI_ENDPOINT names, which changes " +
			"when the host restarts; reload the environment of this shell, or restart the program",
	}
	environment = Diagnosis{
		NotConfigured,
		"EnvironmentCredential needs AZURE_TENANT_ID, AZURE_CLIENT_ID, " +
			"and AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH",
	}
	workloadIdentity = Diagnosis{
		NotInPod,
		"WorkloadIdentityCredential needs AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_FEDERATED_TOKEN_FILE, which AKS sets " +
			"in pods; check the label and the service account of the pod, or use another credential elsewhere",
	}
	authenticate = Diagnosis{
		NeedsUser,
		"the credential requires a user to log in; call its Authenticate method before the program connects",
	}
	noIdentity = Diagnosis{
		NoIdentity,
		"no credential of the chain found an identity here; log in with az login, assign a managed identity, " +
			"or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET for a service principal",
	}
)
