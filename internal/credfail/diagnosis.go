// Package credfail explains why a credential returns no token: what the errors
// of azidentity and the codes of Entra mean, and what to do.
package credfail

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// A Diagnosis is the cause of a failed token request. The zero value means that the
// cause is unknown.
type Diagnosis struct {
	Kind Kind
	Hint string // explains the cause and the fix; does not quote the error
}

// Classify returns the diagnosis of a credential's error. For a chain, it diagnoses the
// member that ended the chain or, if no member has an identity, all members. The hint
// names the settings that select the identity.
func Classify(err error, settings Settings) Diagnosis {
	d := classify(err)
	d.Hint = settings.name(d.Hint)
	return d
}

func classify(err error) Diagnosis {
	if err == nil {
		return Diagnosis{}
	}
	var failed *azidentity.AuthenticationFailedError
	var needsUser *azidentity.AuthenticationRequiredError
	isFailed := errors.As(err, &failed)
	text, chain := err.Error(), strings.Contains(err.Error(), chained)
	if chain && isFailed {
		text, chain = lastMember(text), false
	}
	for _, match := range code.FindAllStringSubmatch(text, -1) {
		if d, known := codes[match[1]]; known {
			return d
		}
	}
	managed := strings.Contains(text, managedIdentity)
	for _, m := range messages {
		if strings.Contains(text, m.fragment) && (m.inChain || !chain) {
			if m.diagnosis == unreachable && managed {
				return staleEndpoint
			}
			return m.diagnosis
		}
	}
	if managed && !chain && rejected.MatchString(text) && !strings.Contains(text, metadataService) {
		return staleSecret
	}
	switch {
	case chain:
		return noIdentity
	case errors.As(err, &needsUser):
		return authenticate
	case isFailed && failed.RawResponse != nil:
		return diagnoseStatus(failed.RawResponse.StatusCode)
	default:
		return Diagnosis{}
	}
}

const (
	// managedIdentity is part of every error of a managed identity.
	managedIdentity = "ManagedIdentityCredential"

	// metadataService is the address of the endpoint that requires no secret.
	metadataService = "//169.254.169.254/"
)

// rejected matches the status line that azidentity prints if an endpoint rejects a
// secret.
var rejected = regexp.MustCompile(`(?m)^\s*RESPONSE 40[13]\b`)

// chained is part of every error of DefaultAzureCredential and
// ChainedTokenCredential.
const chained = "failed to acquire a token.\nAttempted credentials:"

// lastMember returns the part of a chain's error that belongs to its last member. The
// error lists the members that were tried. The first line of each begins with one tab,
// and its further lines with more. A chain ends with the first member that has an
// identity and fails.
func lastMember(text string) string {
	const start = "\n\t"
	for end := len(text); ; {
		i := strings.LastIndex(text[:end], start)
		if i < 0 {
			return text
		}
		if !strings.HasPrefix(text[i+len(start):], "\t") {
			return text[i:]
		}
		end = i
	}
}

// code matches the codes of Entra.
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes
var code = regexp.MustCompile(`AADSTS(\d+)`)

// diagnoseStatus returns the diagnosis of an HTTP status without a known code.
func diagnoseStatus(status int) Diagnosis {
	switch {
	case status == http.StatusTooManyRequests:
		return throttled
	case status >= http.StatusInternalServerError:
		return serviceFailed
	default:
		return Diagnosis{}
	}
}
