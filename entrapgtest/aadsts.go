package entrapgtest

import (
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"time"

	"github.com/google/uuid"
)

// An entraError is an error response of Entra or of a managed identity endpoint.
type entraError struct {
	status  int
	code    int // AADSTS code; 0 for an error of the endpoint itself
	name    string
	message string // a format for with
}

// Entra's error messages, with their HTTP statuses and names.
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes
var (
	throttled = entraError{
		http.StatusTooManyRequests, 90055, "temporarily_unavailable",
		"The server is terminating the request because there are too many requests.",
	}
	serverError = entraError{http.StatusInternalServerError, 50000, "server_error", "There was an error issuing a token."}
	entraDown   = entraError{
		http.StatusServiceUnavailable, 90033, "temporarily_unavailable",
		"A transient error has occurred. Please try again.",
	}

	unknownTenant = entraError{
		http.StatusBadRequest, 90002, "invalid_tenant",
		"Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the " +
			"correct cloud.",
	}
	missingParameter = entraError{
		http.StatusBadRequest, 900144, "invalid_request",
		"The request body must contain the following parameter: '%s'.",
	}
	unsupportedGrant = entraError{
		http.StatusBadRequest, 70003, "unsupported_grant_type",
		"The app requested an unsupported grant type '%s'.",
	}
	invalidScope = entraError{
		http.StatusBadRequest, 70011, "invalid_scope",
		"The provided value for the input parameter 'scope' is not valid. The scope '%s' is not a resource " +
			"followed by /.default.",
	}

	unknownApplication = entraError{
		http.StatusBadRequest, 700016, "unauthorized_client",
		"Application with identifier '%s' was not found in the directory '%s'.",
	}
	noClientCredential = entraError{
		http.StatusUnauthorized, 7000218, "invalid_client",
		"The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
	}
	wrongSecret = entraError{
		http.StatusUnauthorized, 7000215, "invalid_client",
		"Invalid client secret provided. Ensure the secret being sent in the request is the client secret " +
			"value, not the client secret ID, for a secret added to app '%s'.",
	}
	malformedAssertion = entraError{
		http.StatusUnauthorized, 50027, "invalid_client",
		"JWT token is invalid or malformed.",
	}
	expiredAssertion = entraError{
		http.StatusUnauthorized, 700024, "invalid_client",
		"Client assertion is not within its valid time range.",
	}
	wrongCertificate = entraError{
		http.StatusUnauthorized, 700027, "invalid_client",
		"The certificate with identifier used to sign the client assertion is not registered on " +
			"application, or the assertion is invalid. [Reason - %s]",
	}
	notFederated = entraError{
		http.StatusBadRequest, 70021, "invalid_request",
		"No matching federated identity record found for presented assertion. Assertion Issuer: '%s'. " +
			"Assertion Subject: '%s'. Assertion Audience: '%s'.",
	}

	unknownUser = entraError{
		http.StatusBadRequest, 50034, "invalid_grant",
		"The user account %s does not exist in the %s directory. To sign into this application, the " +
			"account must be added to the directory.",
	}
	wrongPassword = entraError{
		http.StatusBadRequest, 50126, "invalid_grant",
		"Error validating credentials due to invalid username or password.",
	}
	requiresMFA = entraError{
		http.StatusBadRequest, 50076, "invalid_grant",
		"Due to a configuration change made by your administrator, or because you moved to a new location, " +
			"you must use multi-factor authentication to access '%s'.",
	}
)

// Errors for faults in which Entra sends no valid response.
var (
	errReset     = fmt.Errorf("the tenant cannot be reached: %w", syscall.ECONNRESET)
	errTruncated = errors.New("the tenant's response is truncated JSON")
)

// with returns e with its message formatted.
func (e entraError) with(args ...any) entraError {
	e.message = fmt.Sprintf(e.message, args...)
	return e
}

func (e entraError) Error() string {
	if e.code == 0 {
		return e.message
	}
	return fmt.Sprintf("AADSTS%d: %s", e.code, e.message)
}

// entraBody returns the body of an error response in Entra's format.
func entraBody(r *http.Request, e entraError) any {
	trace, correlation := uuid.NewString(), r.Header.Get("client-request-id")
	if correlation == "" {
		correlation = uuid.NewString()
	}
	now := time.Now().UTC().Format("2006-01-02 15:04:05Z")
	return map[string]any{
		"error": e.name,
		"error_description": fmt.Sprintf("%s Trace ID: %s Correlation ID: %s Timestamp: %s", e.Error(),
			trace, correlation, now),
		"error_codes":    []int{e.code},
		"timestamp":      now,
		"trace_id":       trace,
		"correlation_id": correlation,
		"error_uri":      fmt.Sprintf("https://login.microsoftonline.com/error?code=%d", e.code),
	}
}
