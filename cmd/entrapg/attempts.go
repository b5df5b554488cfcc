package main

import (
	"regexp"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// attempts are what azidentity's log tells about the members of
// DefaultAzureCredential, which its result does not.
type attempts struct {
	mu     sync.Mutex // guards what follows
	winner string
	passed []member
}

// A member was passed over.
type member struct{ name, why string }

// listen begins to read the log. There is one log in the process, and so one
// listener.
func listen() *attempts {
	a := &attempts{}
	log.SetEvents(azidentity.EventAuthentication)
	log.SetListener(func(_ log.Event, text string) { a.hear(text) })
	return a
}

var authenticated = regexp.MustCompile(`^DefaultAzureCredential authenticated with (?:\*?azidentity\.)?(\w+)`)

func (a *attempts) hear(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if match := authenticated.FindStringSubmatch(text); match != nil {
		a.winner = match[1]
		return
	}
	if _, list, ok := strings.Cut(text, "failed to initialize some credentials:\n\t"); ok {
		for entry := range strings.SplitSeq(list, "\n\t") {
			if name, why, ok := strings.Cut(entry, ": "); ok {
				a.passed = append(a.passed, member{name, why})
			}
		}
	}
}

// name says which credential produced a token.
func (a *attempts) name(credential string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.winner == "" {
		return credential
	}
	return a.winner + ", of " + credential
}

// chain is the order in which DefaultAzureCredential tries its members.
var chain = []string{"EnvironmentCredential", "WorkloadIdentityCredential", "ManagedIdentityCredential", "AzureCLICredential", "AzureDeveloperCLICredential", "AzurePowerShellCredential"}

// passedOver lists the members before the one that produced the token.
func (a *attempts) passedOver() []member {
	a.mu.Lock()
	defer a.mu.Unlock()
	var before []member
	for _, name := range chain {
		if name == a.winner {
			return before
		}
		for _, m := range a.passed {
			if m.name == name {
				before = append(before, m)
			}
		}
	}
	return nil
}
