package credfail

// A Kind is a cause of a failed token request.
type Kind int

// The known causes.
const (
	Unknown                 Kind = iota
	WrongSecret                  // the client secret is wrong
	ExpiredSecret                // the client secret has expired
	UnregisteredCertificate      // the application does not have the certificate
	MissingClientCredential      // the application did not authenticate
	InvalidAssertion             // the federated token or client assertion is invalid or expired
	NotFederated                 // no federated credential matches the workload
	UnknownApplication           // the tenant does not have the application
	UnknownTenant                // the cloud does not have the tenant
	UnknownResource              // the tenant does not have the resource of the scope
	InvalidScope                 // the scope has the wrong form
	NeedsUser                    // only a user can complete the login
	NeedsSecondFactor            // only a user with a second factor can complete the login
	BlockedByPolicy              // conditional access rejects the login
	LoginExpired                 // the login of a developer tool or a user has expired or was revoked
	WrongPassword                // of a user
	UnknownUser                  // the tenant does not have the user
	Throttled                    // too many requests
	ServiceFailed                // Entra or the metadata endpoint fails
	NoSuchIdentity               // the host does not have the managed identity
	SeveralIdentities            // the host has several managed identities, and none is selected
	NoEndpoint                   // the host has no managed identity endpoint
	StaleSecret                  // the managed identity endpoint rejects the secret in the environment
	StaleEndpoint                // the managed identity endpoint that the environment names cannot be reached
	UntrustedCertificate         // the certificate of Entra is not trusted
	Unreachable                  // Entra cannot be reached
	Proxy                        // the HTTP proxy cannot be used
	NotLoggedIn                  // a developer tool is not logged in
	AzureCLIMissing              // the Azure CLI is not installed
	ToolMissing                  // another developer tool is not installed
	NotConfigured                // variables that the credential reads are not set
	NotInPod                     // variables that AKS sets for workload identities are not set
	NoIdentity                   // no member of a chain found an identity
	NoAnswer                     // the credential timed out
)
