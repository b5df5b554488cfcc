package entrapg_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// forever is a token that does not expire during the tests.
var forever = azcore.AccessToken{Token: "forever", ExpiresOn: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}

// azureCLI installs a fake Azure CLI on PATH: a shell script that runs answer.
func azureCLI(t *testing.T, answer string) (calls func() int) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in for the Azure CLI is a shell script")
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\necho called >>%s/calls\n%s\n", dir, answer)
	if err := os.WriteFile(filepath.Join(dir, "az"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() int {
		b, _ := os.ReadFile(filepath.Join(dir, "calls"))
		return strings.Count(string(b), "called")
	}
}

// azAnswer returns a shell command that prints token as the Azure CLI does.
func azAnswer(token azcore.AccessToken) string {
	return fmt.Sprintf(`echo '{"accessToken": "%s", "expires_on": %d, "tokenType": "Bearer"}'`,
		token.Token, token.ExpiresOn.Unix())
}
