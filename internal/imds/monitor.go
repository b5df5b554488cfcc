package imds

import (
	"fmt"
	"mime"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// MaxWait bounds a request to the Instance Metadata Service while the service is
// temporarily unavailable. During an update, it answers 410 for up to 70 seconds.
// https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#retry-guidance
const MaxWait = 90 * time.Second

// retries replaces azidentity's options, whose delay grows to 25 seconds. The last
// try starts after 79 to 84 seconds, before MaxWait, so that its answer is in the
// error. A longer Retry-After ends the request.
var retries = policy.RetryOptions{
	MaxRetries:    10,
	RetryDelay:    time.Second,
	MaxRetryDelay: 10 * time.Second,
	StatusCodes: []int{
		http.StatusNotFound, http.StatusGone, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusNotImplemented, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
	},
}

// A Monitor records the progress of one credential's requests to a metadata
// endpoint, and rejects answers of other services. Its methods are safe for
// concurrent use.
type Monitor struct{ current atomic.Pointer[progress] }

// progress is the progress of a request.
type progress struct {
	connected bool
	status    int // of the last answer; 0 if there is none
}

// Install makes a credential with these options report to m.
func (m *Monitor) Install(options *azcore.ClientOptions) {
	options.PerCallPolicies = append(slices.Clip(options.PerCallPolicies), policyFunc(m.call))
	options.PerRetryPolicies = append(slices.Clip(options.PerRetryPolicies), policyFunc(m.try))
}

type policyFunc func(*policy.Request) (*http.Response, error)

func (f policyFunc) Do(r *policy.Request) (*http.Response, error) { return f(r) }

// Progress describes the progress of the current request, or of the last one if it
// was canceled. It returns "" if there was no request to a metadata endpoint.
func (m *Monitor) Progress() string {
	p := m.current.Load()
	switch {
	case p == nil:
		return ""
	case p.status != 0:
		return "the managed identity endpoint answers " + statusText(p.status)
	case p.connected:
		return "the managed identity endpoint accepts the connection and does not answer"
	}
	return NoEndpoint
}

// Unavailable reports whether the endpoint is temporarily unavailable, by its last
// answer to the current request.
func (m *Monitor) Unavailable() bool {
	p := m.current.Load()
	return p != nil && slices.Contains(retries.StatusCodes, p.status)
}

// call is a policy for one request with its retries.
func (m *Monitor) call(r *policy.Request) (*http.Response, error) {
	raw := r.Raw()
	if !isMetadata(raw.URL.Hostname()) {
		return r.Next()
	}
	ctx := raw.Context()
	// DefaultAzureCredential's probe lacks the header, and is not retried.
	if raw.URL.Hostname() == host && raw.Header.Get("Metadata") != "" {
		r = r.Clone(policy.WithRetryOptions(ctx, retries))
	}
	m.current.Store(&progress{})
	response, err := r.Next()
	if ctx.Err() == nil {
		m.current.Store(nil)
	}
	return response, err
}

// try is a policy for one try of a request.
func (m *Monitor) try(r *policy.Request) (*http.Response, error) {
	name := r.Raw().URL.Hostname()
	if !isMetadata(name) {
		return r.Next()
	}
	response, err := r.Clone(httptrace.WithClientTrace(r.Raw().Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { m.advance(progress{connected: true}) },
	})).Next()
	if err != nil {
		return response, err
	}
	if name == host && !isAnswer(response) {
		return nil, &foreignAnswerError{response.StatusCode}
	}
	m.advance(progress{connected: true, status: response.StatusCode})
	return response, nil
}

// advance records progress. The last status remains during the next try.
func (m *Monitor) advance(p progress) {
	if old := m.current.Load(); p.status == 0 && old != nil && old.status != 0 {
		return
	}
	m.current.Store(&p)
}

// isAnswer reports whether a response can come from the Instance Metadata Service.
// Other clouds have their own services at the same address, and proxies answer for
// it. Azure's answers are JSON, except that the host's web server can answer while
// the service is unavailable.
func isAnswer(r *http.Response) bool {
	server := r.Header.Get("Server")
	if strings.HasPrefix(server, "IMDS") || strings.HasPrefix(server, "Microsoft") {
		return true
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && media == "application/json":
		return true
	case media == "text/html":
		return false
	}
	switch r.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return false
	}
	return true
}

func statusText(status int) string { return fmt.Sprintf("%d %s", status, http.StatusText(status)) }
