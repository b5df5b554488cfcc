// Package azlog finds, in the log of azidentity, which member of
// DefaultAzureCredential returned a token.
package azlog

import (
	"regexp"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// Attempts records which member of DefaultAzureCredential returned a token and
// which are not set up, from azidentity's log. The log does not mention members that
// were tried and failed.
type Attempts struct {
	mu     sync.Mutex // guards the following
	winner string
	notSet []string // a name, a colon and the reason
}

// Watch starts recording. It replaces azcore's log listener; a process has only one.
func Watch() *Attempts {
	a := &Attempts{}
	log.SetEvents(azidentity.EventAuthentication)
	log.SetListener(func(_ log.Event, text string) { a.record(text) })
	return a
}

var authenticated = regexp.MustCompile(`^DefaultAzureCredential authenticated with (\w+)`)

func (a *Attempts) record(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if match := authenticated.FindStringSubmatch(text); match != nil {
		a.winner = match[1]
	} else if _, list, ok := strings.Cut(text, "failed to initialize some credentials:\n\t"); ok {
		a.notSet = strings.Split(list, "\n\t")
	}
}

// Name returns the name of the credential that returned a token.
func (a *Attempts) Name(credential string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.winner == "" {
		return credential
	}
	return a.winner + ", of " + credential
}

// NotSetUp returns the members that could not be tried, with the reasons.
func (a *Attempts) NotSetUp() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.notSet
}
