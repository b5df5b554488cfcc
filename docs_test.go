package entrapg_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var goBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// TestDocs_GoCodeCompilesAndItsTestsPass creates a package of every Go block of the README and docs, in
// a module with this module's requirements. It vets all packages and runs their tests.
func TestDocs_GoCodeCompilesAndItsTestsPass(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod = bytes.Replace(mod, []byte("module github.com/entrapg/entrapg\n"), []byte("module example.com/docs\n"), 1)
	mod = fmt.Appendf(mod,
		"\nrequire github.com/entrapg/entrapg v0.0.0\n\nreplace github.com/entrapg/entrapg => %q\n", root)
	sum, err := os.ReadFile("go.sum")
	if err != nil {
		t.Fatal(err)
	}
	module := t.TempDir()
	write := func(name string, content []byte) {
		t.Helper()
		path := filepath.Join(module, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", mod)
	write("go.sum", sum)

	documents, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	var tests []string
	for _, document := range append(documents, "README.md") {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range goBlock.FindAllSubmatch(text, -1) {
			blocks++
			dir, file := fmt.Sprintf("%s-block-%d", filepath.Base(document), blocks), "main.go"
			if bytes.Contains(block[1], []byte("testing.T)")) {
				file = "doc_test.go"
				tests = append(tests, "./"+dir)
			}
			write(filepath.Join(dir, file), block[1])
		}
	}
	if blocks < 3 || len(tests) == 0 {
		t.Errorf("only %d Go blocks were found, %d of them tests", blocks, len(tests))
	}
	for _, args := range [][]string{
		{"vet", "-mod=mod", "./..."},
		append([]string{"test", "-vet=off", "-mod=mod"}, tests...),
	} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("go %s: %v\n%s", args[0], err, out)
		}
	}
}

// TestDocs_RequirementsMatchList fails when go.mod gains a requirement that is not on the list.
func TestDocs_RequirementsMatchList(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{
		"github.com/Azure/azure-sdk-for-go/sdk/azcore",
		"github.com/Azure/azure-sdk-for-go/sdk/azidentity",
		"github.com/golang-jwt/jwt/v5",
		"github.com/google/uuid",
		"github.com/jackc/pgservicefile",
		"github.com/jackc/pgx/v5",
		"github.com/joho/godotenv",
		"github.com/urfave/cli/v3",
		"golang.org/x/sys",
		"golang.org/x/text",
	}
	var direct []string
	for line := range strings.Lines(string(mod)) {
		fields := strings.Fields(line)
		if len(fields) == 2 && strings.HasPrefix(fields[1], "v") {
			direct = append(direct, fields[0])
		}
		if len(fields) > 0 && fields[0] == "replace" {
			t.Error("a replace directive breaks go install")
		}
	}
	slices.Sort(direct)
	if !slices.Equal(direct, allowed) {
		t.Errorf("go.mod requires %q, the list has %q", direct, allowed)
	}
}

func TestDocs_LibraryImportsNoTestPackage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ pkg, forbidden string }{
		{".", "testing"},
		{".", "github.com/entrapg/entrapg/entrapgtest"},
		{"./entrapgtest", "testing"},
	} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", test.pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(strings.Fields(string(out)), test.forbidden) {
			t.Errorf("%s imports %s", test.pkg, test.forbidden)
		}
	}
}

var (
	testNamed = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`")
	testHere  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w+)\(`)
)

// TestDocs_TestsNamedInSecurityPolicyExist checks that the tests named in SECURITY.md exist.
func TestDocs_TestsNamedInSecurityPolicyExist(t *testing.T) {
	t.Parallel()
	exist := map[string]bool{}
	for _, pattern := range []string{
		"*_test.go", "internal/*/*_test.go", "entrapgtest/*_test.go", "cmd/entrapg/*_test.go", "cmd/entrapg/internal/*/*_test.go",
		"cmd/entrapg/internal/*/*/*_test.go",
	} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range testHere.FindAllSubmatch(code, -1) {
				exist[string(name[1])] = true
			}
		}
	}
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	named := testNamed.FindAllSubmatch(text, -1)
	if len(named) < 20 {
		t.Errorf("only %d names were found", len(named))
	}
	for _, name := range named {
		if !exist[string(name[1])] {
			t.Errorf("%s does not exist", name[1])
		}
	}
}
