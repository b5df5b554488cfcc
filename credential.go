package entrapg

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// lazyCredential makes a credential when the first token is asked for, so that
// building a connector costs nothing and cannot fail for lack of an identity.
type lazyCredential struct {
	create func() (azcore.TokenCredential, error)

	mu   sync.Mutex // guards made
	made azcore.TokenCredential
}

// get returns the credential. One that could not be made is tried again by the
// next caller: what was missing may be there by then.
func (l *lazyCredential) get() (azcore.TokenCredential, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made == nil {
		made, err := l.create()
		if err != nil {
			return nil, err
		}
		l.made = made
	}
	return l.made, nil
}

// defaultCredential makes azidentity's DefaultAzureCredential for a cloud.
// AZURE_AUTHORITY_HOST wins over the cloud: azidentity reads it only where the
// options name none.
func defaultCredential(c *azureCloud) (azcore.TokenCredential, error) {
	var options azidentity.DefaultAzureCredentialOptions
	if os.Getenv("AZURE_AUTHORITY_HOST") == "" {
		options.Cloud = c.authority
	}
	return azidentity.NewDefaultAzureCredential(&options)
}

// credentialName is what a credential is called in errors and logs.
func credentialName(credential azcore.TokenCredential) string {
	return strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", credential), "*"), "azidentity.")
}
