package main

import (
	"regexp"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// attempts are what azidentity's log tells about the members of
// DefaultAzureCredential: the one that produced a token, and those that are not
// set up. About those that were asked and had none, it says nothing.
type attempts struct {
	mu     sync.Mutex // guards what follows
	winner string
	notSet []string // a name, a colon and the reason
}

// listen begins to read the log. There is one log in the process, and so one
// listener.
func listen() *attempts {
	a := &attempts{}
	log.SetEvents(azidentity.EventAuthentication)
	log.SetListener(func(_ log.Event, text string) { a.hear(text) })
	return a
}

var authenticated = regexp.MustCompile(`^DefaultAzureCredential authenticated with (\w+)`)

func (a *attempts) hear(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if match := authenticated.FindStringSubmatch(text); match != nil {
		a.winner = match[1]
	} else if _, list, ok := strings.Cut(text, "failed to initialize some credentials:\n\t"); ok {
		a.notSet = strings.Split(list, "\n\t")
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

// notSetUp lists the members that could not be tried, with the reasons.
func (a *attempts) notSetUp() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.notSet
}
