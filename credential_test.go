package entrapg_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/entrapg/entrapg"
)

// azureCLI puts a program on PATH that answers as the Azure CLI does, with a token.
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

// azAnswer has the program print a token.
func azAnswer(token azcore.AccessToken) string {
	return fmt.Sprintf(`echo '{"accessToken": "%s", "expires_on": %d, "tokenType": "Bearer"}'`, token.Token, token.ExpiresOn.Unix())
}

func TestWithoutACredentialAzidentitysDefaultIsMadeAtTheFirstConnect(t *testing.T) {
	p := server().Tenant.NewUser("cli@contoso.example")
	createRole(t, server(), "", p)
	token, err := p.GetToken(t.Context(), tokenOptions(databaseScope))
	if err != nil {
		t.Fatal(err)
	}
	db, c := open(t, server().DSN())
	// All this is set after NewConnector, and still in time.
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "AzureCLICredential")
	calls := azureCLI(t, azAnswer(token))
	db.SetMaxIdleConns(0)
	for range 3 {
		if user := sessionUser(t, db); user != p.Name {
			t.Errorf("logged in as %q, want %q", user, p.Name)
		}
	}
	if n := calls(); n != 1 || c.Stats().TokenRequests != 1 {
		t.Errorf("az was called %d times, want 1; Stats: %+v", n, c.Stats())
	}
}

func TestFailureOfTheDefaultCredentialSaysWhichAndWhy(t *testing.T) {
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "AzureCLICredential")
	azureCLI(t, `echo "ERROR: Please run 'az login' to setup account." >&2; exit 1`)
	var token *entrapg.TokenError
	if err := connect(t, entrapg.NewConnector(server().DSN())); !errors.As(err, &token) || !strings.Contains(err.Error(), "az login") || !strings.Contains(err.Error(), "AzureCLICredential") {
		t.Errorf("got %v, want a TokenError with what az said", err)
	}
}

func TestDefaultCredentialThatCannotBeMadeIsATokenErrorAndTriedAgain(t *testing.T) {
	p := server().Tenant.NewUser("later@contoso.example")
	createRole(t, server(), "", p)
	token, err := p.GetToken(t.Context(), tokenOptions(databaseScope))
	if err != nil {
		t.Fatal(err)
	}
	c := entrapg.NewConnector(server().DSN())
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "nonsense")
	var tokenErr *entrapg.TokenError
	if err := connect(t, c); !errors.As(err, &tokenErr) || tokenErr.Credential != "DefaultAzureCredential" || !strings.Contains(err.Error(), "AZURE_TOKEN_CREDENTIALS") {
		t.Errorf("got %v, want a TokenError that names the variable", err)
	}
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "AzureCLICredential")
	azureCLI(t, azAnswer(token))
	mustConnect(t, c)
}

func TestTwentyColdCallersLeaveByTheirOwnDeadlinesWhileTheAzureCLIRuns(t *testing.T) {
	p := server().Tenant.NewUser("slow.cli@contoso.example")
	createRole(t, server(), "", p)
	token, err := p.GetToken(t.Context(), tokenOptions(databaseScope))
	if err != nil {
		t.Fatal(err)
	}
	release := filepath.Join(t.TempDir(), "release")
	calls := azureCLI(t, "while [ ! -e "+release+" ]; do sleep 0.05; done\n"+azAnswer(token))
	c := entrapg.NewConnector(server().DSN() + "&entra_credential=azurecli")
	defer c.Close()

	ended := make(chan outcome, 20)
	for range 20 {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := c.Connect(ctx)
			ended <- outcome{Kind: kindOf(err), Deadline: errors.Is(err, context.DeadlineExceeded)}
		}()
	}
	for range 20 { // while az runs on
		if o := <-ended; o.Kind != "TokenError" || !o.Deadline {
			t.Errorf("got %+v, want a TokenError by the caller's own deadline", o)
		}
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mustConnect(t, c)
	if n := calls(); n != 1 {
		t.Errorf("az was called %d times, want 1: its token serves the next caller", n)
	}
}
