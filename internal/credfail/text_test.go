package credfail_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/internal/credfail"
)

// rejecting answers every request with a body in JSON.
func rejecting(body string) transport {
	return func(r *http.Request) (*http.Response, error) { return respond(r, http.StatusBadRequest, body), nil }
}

func TestSummarize_IsOneLine(t *testing.T) {
	const failed = "ClientSecretCredential authentication failed. HTTP 400 Bad Request: "
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"a response of Entra": {
			secretCredential(rejecting(`{"error":"invalid_client","error_description":"AADSTS7000215: wrong.\r\nTrace ID: 7d"}`)),
			failed + "AADSTS7000215: wrong. Trace ID: 7d",
		},
		"a response that is not JSON": {secretCredential(rejecting("<html>\n no")), failed + "<html> no"},
		"control characters": {
			secretCredential(rejecting(`{"error_description":"\u001b[31mred\u202eder"}`)),
			failed + "[31mred der",
		},
		"an escaped token": {
			secretCredential(rejecting(`{"error_description":"\u0065yJhbGciOi"}`)),
			failed + `{ "error_description": "\u0065yJhbGciOi" }`,
		},
		"a response of a managed identity endpoint": {
			managedIdentity(nil, rejecting(`{"message":"Identity not found","statusCode":400}`)),
			"ManagedIdentityCredential: failed to authenticate a system assigned identity. " +
				`The endpoint responded with {"message":"Identity not found","statusCode":400}`,
		},
		"a chain": {
			errors.New("DefaultAzureCredential: failed to acquire a token.\nAttempted credentials:\n\tA: no\n\tB: none.\n\t\tat all"),
			"DefaultAzureCredential: failed to acquire a token. Attempted credentials: A: no; B: none. at all",
		},
		"a link":        {errors.New("no ID. To troubleshoot, visit https://aka.ms/azsdk/go/identity/troubleshoot#x"), "no ID."},
		"another error": {errors.New("down"), "down"},
	} {
		if got := credfail.Summarize(test.err.Error()); got != test.want {
			t.Errorf("%s:\ngot  %q\nwant %q\nof   %q", name, got, test.want, test.err)
		}
	}
}

func TestCondense_HasLineForEachPart(t *testing.T) {
	err := secretCredential(rejecting(`{"error":"invalid_client","error_description":"AADSTS7000215: wrong"}`))
	chain := "Attempted credentials:\n\t" + strings.ReplaceAll(err.Error(), "\n", "\n\t")
	if got := credfail.Condense(chain); got != "Attempted credentials:\n"+credfail.Condense(err.Error()) {
		t.Errorf("as a member of a chain: %q", got)
	}
	got := strings.Split(credfail.Condense(err.Error()), "\n")
	if len(got) != 3 || got[1] != "HTTP 400 Bad Request: AADSTS7000215: wrong" ||
		!strings.HasPrefix(got[2], "To troubleshoot, visit https://") {
		t.Errorf("got %q", got)
	}
}
