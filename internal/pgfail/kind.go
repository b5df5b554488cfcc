package pgfail

// A Kind is a reason for which a login fails.
type Kind int

// The known reasons.
const (
	Unknown             Kind = iota
	TokenExpired             // the token has expired
	WrongAudience            // the token is for another service or cloud
	CosmosAudience           // the same; the server is Azure Cosmos DB for PostgreSQL
	MalformedToken           // the token was changed or truncated
	NotAToken                // the server accepts it as no token of its tenant
	NoObjectID               // the token has no oid claim
	UserTokenForService      // a user's token for the role of a service principal
	ServiceTokenForUser      // the token of a service principal for a user's role
	NotInGroup               // the token lacks the role's group
	OtherPrincipal           // the role is mapped to another principal
	NoTLS                    // the server rejects plaintext
	HostNotAllowed           // the server rejects this address, user or database
	PgBouncer                // PgBouncer cannot handle the token
	NotMapped                // the server requests an ordinary password: the role is not mapped to Entra
	NoAuthentication         // the server requests nothing
	NoRole                   // the role does not exist or is not mapped to this identity
)
