package entrapg_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/entrapg/entrapg"
)

// The test binary also runs as two other programs. One uses entrapg and is configured only by its
// environment and a DSN. The other emulates the developer tools that azidentity runs, such as az.
const (
	asProgram = "ENTRAPG_TEST_AS_PROGRAM"
	asTool    = "ENTRAPG_TEST_AS_TOOL"
)

// An outcome is the result of one login.
type outcome struct {
	User     string
	Error    string
	Kind     string // type of the error
	Deadline bool   // the error is the caller's deadline
}

// serveLogins is the program that uses entrapg. For each line of input, a deadline and a DSN,
// it logs in and prints the outcome. It opens one pool per DSN.
func serveLogins() {
	pools := map[string]*sql.DB{}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		deadline, dsn, _ := strings.Cut(lines.Text(), " ")
		if pools[dsn] == nil {
			db, err := sql.Open("entrapg", dsn)
			if err != nil {
				panic(err)
			}
			db.SetMaxIdleConns(0) // every query logs in
			pools[dsn] = db
		}
		limit, err := time.ParseDuration(deadline)
		if err != nil {
			panic(err)
		}
		out, err := json.Marshal(login(pools[dsn], limit))
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s\n", out)
	}
}

func login(db *sql.DB, limit time.Duration) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var o outcome
	err := db.QueryRowContext(ctx, "select session_user").Scan(&o.User)
	if err != nil {
		o.Error, o.Deadline = err.Error(), errors.Is(err, context.DeadlineExceeded)
		o.Kind = kindOf(err)
	}
	return o
}

func kindOf(err error) string {
	var token *entrapg.TokenError
	var login *entrapg.LoginError
	switch {
	case errors.As(err, &token):
		return "TokenError"
	case errors.As(err, &login):
		return "LoginError"
	}
	return fmt.Sprintf("%T", err)
}

// startProgram starts the program with only env in its environment.
func startProgram(t *testing.T, env []string) func(limit time.Duration, dsn string) outcome {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(env, asProgram+"=1", "HOME="+t.TempDir(), "GORACE=atexit_sleep_ms=0",
		"GODEBUG=x509usefallbackroots=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("program: %v\n%s", err, &stderr)
		}
	})
	outcomes := json.NewDecoder(out)
	return func(limit time.Duration, dsn string) (o outcome) {
		fmt.Fprintf(in, "%s %s\n", limit, dsn)
		if err := outcomes.Decode(&o); err != nil {
			return outcome{Error: fmt.Sprintf("program: %v", err)}
		}
		return o
	}
}

// trustVariable makes SSL_CERT_FILE effective on systems where Go uses only the system's
// roots.
func trustVariable() {
	file := os.Getenv("SSL_CERT_FILE")
	if file == "" || runtime.GOOS != "windows" && runtime.GOOS != "darwin" {
		return
	}
	roots := x509.NewCertPool()
	if content, err := os.ReadFile(file); err == nil {
		roots.AppendCertsFromPEM(content)
	}
	x509.SetFallbackRoots(roots) // GODEBUG=x509usefallbackroots=1 prefers them
}

// Environment variables that configure the tools.
const (
	toolAuthority = "TOOL_AUTHORITY"
	toolCA        = "TOOL_CA"
	toolUser      = "TOOL_USER"
	toolPassword  = "TOOL_PASSWORD"
)

// tools installs stand-ins for the Azure CLI, the Azure Developer CLI and Azure PowerShell, and
// returns a PATH that finds them.
func tools(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"az", "azd", "pwsh"} {
		script := fmt.Sprintf("#!/bin/sh\n%s=%s exec '%s' \"$@\"\n", asTool, name, os.Args[0])
		writeScript(t, filepath.Join(dir, name), script)
	}
	return dir + ":/usr/bin:/bin"
}

var resources = regexp.MustCompile(`https://[\w./-]+`)

// runTool runs as the named tool: it requests a token for the signed-in user from the tenant and
// prints it in the tool's format.
func runTool(name string, args []string) error {
	text := strings.Join(args, " ")
	if name == "pwsh" {
		script, err := base64.StdEncoding.DecodeString(args[len(args)-1])
		if err != nil {
			return err
		}
		units := make([]uint16, len(script)/2)
		for i := range units {
			units[i] = uint16(script[2*i]) | uint16(script[2*i+1])<<8
		}
		_, text, _ = strings.Cut(string(utf16.Decode(units)), "ResourceUrl")
	}
	scope := strings.TrimSuffix(resources.FindString(text), "/.default") + "/.default"

	roots := x509.NewCertPool()
	pem, err := os.ReadFile(os.Getenv(toolCA))
	if err != nil {
		return err
	}
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	response, err := client.PostForm(os.Getenv(toolAuthority)+"/contoso.example/oauth2/v2.0/token", url.Values{
		"grant_type": {"password"}, "client_id": {"04b07795-8ddb-461a-bbee-02f9e1bf7b46"}, "scope": {scope},
		"username": {os.Getenv(toolUser)}, "password": {os.Getenv(toolPassword)},
	})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Token string `json:"access_token"`
		Life  int    `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Token == "" {
		return fmt.Errorf("ERROR: %s", body)
	}
	expires := time.Now().Add(time.Duration(answer.Life) * time.Second)
	var out any
	switch name {
	case "az":
		out = map[string]any{"accessToken": answer.Token, "expires_on": expires.Unix(), "tokenType": "Bearer"}
	case "azd":
		out = map[string]any{"token": answer.Token, "expiresOn": expires.UTC().Format("2006-01-02T15:04:05Z")}
	case "pwsh":
		out = map[string]any{"Token": answer.Token, "ExpiresOn": expires.Unix()}
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}
