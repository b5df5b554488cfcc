package azuretest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

func TestDocs_TableOfLibrariesLinksToEveryExample(t *testing.T) {
	text, err := os.ReadFile("../../../docs/libraries.md")
	if err != nil {
		t.Fatal(err)
	}
	linked := map[string]bool{}
	for _, link := range regexp.MustCompile(`\]\(\.\./examples/([\w-]+)/(\w+\.go)\)`).FindAllSubmatch(text, -1) {
		linked[string(link[1])] = true
		if _, err := os.Stat(filepath.Join("../..", string(link[1]), string(link[2]))); err != nil {
			t.Error(err)
		}
	}
	programs, err := filepath.Glob("../../*/main.go")
	if err != nil || len(programs) == 0 {
		t.Fatal(programs, err)
	}
	for _, program := range programs {
		if name := filepath.Base(filepath.Dir(program)); !linked[name] {
			t.Errorf("no link to example %s", name)
		}
	}
}
