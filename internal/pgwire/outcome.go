package pgwire

// An Outcome is how an exchange ended.
type Outcome int

const (
	// Pending means that the exchange continues, or that pgx ended it.
	Pending Outcome = iota
	// Accepted means that the server is ready for queries.
	Accepted
	// Rejected means that the server rejected the login: SQLSTATE class 28, or
	// a failure of OAUTHBEARER.
	Rejected
	// Failed means that the server sent another error.
	Failed
	// Broken means that the connection broke or exceeded a limit.
	Broken
)

// An Observer is called when an exchange has ended.
type Observer interface{ ExchangeEnded(*Exchange) }
