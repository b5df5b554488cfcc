package entrapg_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
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
	writeScript(t, filepath.Join(dir, "az"), script)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() int {
		b, _ := os.ReadFile(filepath.Join(dir, "calls"))
		return strings.Count(string(b), "called")
	}
}

// writeScript writes an executable file. Meanwhile no other process starts: it would inherit the open
// file, and a file that is open for writing cannot be executed (ETXTBSY).
func writeScript(t *testing.T, path, script string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// azAnswer returns a shell command that prints token as the Azure CLI does.
func azAnswer(token azcore.AccessToken) string {
	return fmt.Sprintf(`echo '{"accessToken": "%s", "expires_on": %d, "tokenType": "Bearer"}'`,
		token.Token, token.ExpiresOn.Unix())
}
