package entrapg_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// platform matches the end of the name of a file that exists in a variant for each platform.
var platform = regexp.MustCompile(`_(unix|windows|linux|other)(_test)?\.go$`)

// TestStructure_TypeHasItsMethodsInOneFile parses all Go code of the repository, also that of nested
// modules and tests. The variants of a file for platforms count as one file.
func TestStructure_TypeHasItsMethodsInOneFile(t *testing.T) {
	t.Parallel()
	type goType struct{ dir, pkg, name string }
	files := map[goType]map[string]bool{}
	err := filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && path != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata" || e.Name() == "node_modules"):
			return fs.SkipDir
		case e.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil || ast.IsGenerated(file) {
			return err
		}
		for _, declaration := range file.Decls {
			method, ok := declaration.(*ast.FuncDecl)
			if !ok || method.Recv == nil {
				continue
			}
			receiver := goType{filepath.Dir(path), file.Name.Name, typeName(method.Recv.List[0].Type)}
			if files[receiver] == nil {
				files[receiver] = map[string]bool{}
			}
			files[receiver][platform.ReplaceAllString(filepath.Base(path), "$2.go")] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 200 {
		t.Errorf("only %d types with methods were found", len(files))
	}
	for receiver, in := range files {
		if len(in) > 1 {
			t.Errorf("%s: type %s.%s has methods in %q", receiver.dir, receiver.pkg, receiver.name, slices.Sorted(maps.Keys(in)))
		}
	}
}

// typeName returns the name of a receiver's type, without pointer and type parameters.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.ParenExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.IndexListExpr:
		return typeName(e.X)
	case *ast.Ident:
		return e.Name
	default:
		return ""
	}
}

// TestStructure_CommandImportsNoOtherCommand checks that a package in cmd/entrapg/internal imports no
// package of a command, except its own, and except that exec uses the proxy.
func TestStructure_CommandImportsNoOtherCommand(t *testing.T) {
	t.Parallel()
	const internal = "github.com/entrapg/entrapg/cmd/entrapg/internal/"
	// group returns the folder of cmd/entrapg/internal that a package belongs to, or "".
	group := func(pkg string) string {
		inside, ok := strings.CutPrefix(pkg, internal)
		if !ok {
			return ""
		}
		folder, _, _ := strings.Cut(inside, "/")
		return folder
	}

	constructors, err := filepath.Glob("cmd/entrapg/internal/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string]bool{}
	for _, path := range constructors {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range file.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "Command" {
				commands[filepath.Base(filepath.Dir(path))] = true
			}
		}
	}
	if len(commands) < 5 {
		t.Errorf("only the commands %q were found", slices.Sorted(maps.Keys(commands)))
	}

	const format = `{{.ImportPath}} {{join .Imports " "}} {{join .TestImports " "}} {{join .XTestImports " "}}`
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", format, "./cmd/entrapg/internal/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		pkg, imports := strings.Fields(line)[0], strings.Fields(line)[1:]
		for _, imported := range imports {
			from, to := group(pkg), group(imported)
			if commands[to] && from != to && (from != "execute" || to != "proxy") {
				t.Errorf("%s imports %s, which belongs to a command", pkg, imported)
			}
		}
	}
}
