package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

// TestProxyDocs_UseFlagsVariablesAndMetricsThatExist checks the names in the
// documentation of the proxy.
func TestProxyDocs_UseFlagsVariablesAndMetricsThatExist(t *testing.T) {
	documents, err := filepath.Glob("../../docs/proxy/*.md")
	if err != nil || len(documents) < 5 {
		t.Fatalf("%q, %v", documents, err)
	}
	root := rootCommand(command.Streams{})
	known := []string{
		"--now", "--build-arg", "--rm", "--help", // of systemctl, docker and all commands
		"ENTRAPG_PROXY_PASSWORD",
	}
	for _, name := range []string{"proxy", "exec"} {
		for _, f := range root.Command(name).Flags {
			known = append(known, "--"+f.Names()[0])
			if d, ok := f.(cli.DocGenerationFlag); ok {
				known = append(known, d.GetEnvVars()...)
			}
		}
	}
	code, err := os.ReadFile("internal/proxy/pages.go")
	if err != nil {
		t.Fatal(err)
	}
	known = append(known, regexp.MustCompile(`\bentrapg_\w+`).FindAllString(string(code), -1)...)
	named := regexp.MustCompile(`--[a-z][a-z-]+|ENTRAPG_\w+|\bentrapg_\w+`)
	for _, document := range append(documents, "../../docs/proxy.md") {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range named.FindAllString(string(text), -1) {
			if !slices.Contains(known, name) {
				t.Errorf("%s: %s does not exist", document, name)
			}
		}
	}
	// Conversely, every metric is documented.
	text, err := os.ReadFile("../../docs/proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range known {
		if strings.HasPrefix(name, "entrapg_") && !strings.Contains(string(text), name) {
			t.Errorf("docs/proxy.md does not describe %s", name)
		}
	}
}
