package pgfail

// A Kind is a cause of a failed login.
type Kind int

// The known causes.
const (
	Unknown             Kind = iota
	TokenExpired             // the token has expired
	WrongAudience            // the token is for another service or cloud
	MalformedToken           // the token was changed or truncated
	NotAToken                // the server does not accept it as a token of its tenant
	NoObjectID               // the token has no oid claim
	UserTokenForService      // a user's token for the role of a service principal
	ServiceTokenForUser      // the token of a service principal for a user's role
	NotInGroup               // the token lacks the role's group
	OtherPrincipal           // the role is mapped to another principal
	OtherObjectID            // the role is mapped to another object ID of the same name
	NoTLS                    // the server rejects plaintext
	HostNotAllowed           // the server rejects this address, user or database
	PgBouncer                // PgBouncer cannot handle the token
	NotMapped                // the server requests an ordinary password: the role is not mapped to Entra
	NoAuthentication         // the server requests no authentication
	NoRole                   // the role does not exist or is not mapped to this identity
	ServerSuffix             // NoRole, and the user has the form user@server
	GuestName                // NoRole, and the token belongs to a guest, but the user is not the name of a guest's role
	UnnamedIdentity          // NoRole, and the user is the application's name, because the lookup of the identity's failed
	WrongPassword            // a login with a password is rejected
	ServerFull               // the server has no free connection
	RoleFull                 // the role's connection limit is reached
	DatabaseFull             // the database's connection limit is reached
	DatabaseClosed           // the database allows no connections
	NoLogin                  // the role may not log in
	NoDatabase               // the database does not exist
	NoConnectPrivilege       // the role may not connect to the database
	NotReady                 // the server is starting or stopping
	NoSuitableHost           // no host satisfies target_session_attrs
	UnknownParameter         // the server does not know a parameter
	InvalidParameter         // the server rejects the value of a parameter
	TransactionPooling       // a prepared statement is lost between transactions
)

// aboutTokens reports whether the cause concerns the token or its role. It is true
// for Unknown, because an unexplained rejection most likely does.
func (k Kind) aboutTokens() bool {
	switch k {
	case NoTLS, HostNotAllowed, ServerFull, RoleFull, DatabaseFull, DatabaseClosed, NoLogin, NoDatabase, NoConnectPrivilege,
		NotReady, NoSuitableHost, UnknownParameter, InvalidParameter, TransactionPooling:
		return false
	default:
		return true
	}
}

// AboutRole reports whether the cause is that the role is not mapped to the token's
// principal.
func (k Kind) AboutRole() bool {
	switch k {
	case UserTokenForService, ServiceTokenForUser, NotInGroup, OtherPrincipal, OtherObjectID, NotMapped, NoRole,
		ServerSuffix, GuestName, UnnamedIdentity:
		return true
	default:
		return false
	}
}

// AboutUser reports whether another user may be able to log in.
func (k Kind) AboutUser() bool { return k.AboutRole() || k == NoLogin || k == WrongPassword }
