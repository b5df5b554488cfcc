package entrapg_test

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	codeFence = regexp.MustCompile("(?ms)^```.*?^```$")
	codeSpan  = regexp.MustCompile("`[^`\n]*`")
	linkTo    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// documents returns the Markdown files of the repository.
func documents(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "*/README.md", "*/*/README.md", "benchmarks/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, files...)
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(f string) bool { return strings.Contains(f, "node_modules") })
}

// anchors returns the anchors of a document's headings, as GitHub creates them.
func anchors(text string) map[string]bool {
	names := map[string]bool{}
	dropped := regexp.MustCompile(`[^\p{L}\p{N}\-_ ]`)
	for _, m := range heading.FindAllStringSubmatch(codeFence.ReplaceAllString(text, ""), -1) {
		names[strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return names
}

// TestDocs_LinksLeadToFilesAndHeadings checks the links between files of the repository.
func TestDocs_LinksLeadToFilesAndHeadings(t *testing.T) {
	t.Parallel()
	links := 0
	for _, document := range documents(t) {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		prose := codeSpan.ReplaceAllString(codeFence.ReplaceAllString(string(text), ""), "code")
		for _, m := range linkTo.FindAllStringSubmatch(prose, -1) {
			target, err := url.Parse(m[1])
			if err != nil || target.Scheme != "" {
				continue
			}
			links++
			file := document
			if target.Path != "" {
				file = filepath.Join(filepath.Dir(document), filepath.FromSlash(target.Path))
			}
			linked, err := os.ReadFile(file)
			if err != nil {
				if info, statErr := os.Stat(file); statErr != nil || !info.IsDir() {
					t.Errorf("%s: %s does not exist", document, m[1])
				}
				continue
			}
			if target.Fragment != "" && !anchors(string(linked))[target.Fragment] {
				t.Errorf("%s: %s has no such heading", document, m[1])
			}
		}
	}
	if links < 50 {
		t.Errorf("only %d links were found", links)
	}
}

var (
	command    = regexp.MustCompile(`(?:^|\s)entrapg(?:@latest)? ([a-z]+)((?: .*)?)$`)
	makeTarget = regexp.MustCompile(`^make ([a-z]+)`)
	longFlag   = regexp.MustCompile(`(?:^|\s)(--[a-z][a-z-]+)`)
)

// code returns the lines of a document's code blocks, and its code spans.
func code(text string) []string {
	var lines []string
	for _, block := range codeFence.FindAllString(text, -1) {
		lines = append(lines, strings.Split(block, "\n")...)
	}
	text = codeFence.ReplaceAllString(text, "")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "    ") {
			lines = append(lines, strings.TrimSpace(line))
			continue
		}
		for _, span := range codeSpan.FindAllString(line, -1) {
			lines = append(lines, strings.Trim(span, "`"))
		}
	}
	return lines
}

// TestDocs_CommandsAndFlagsExist compares the commands in documents with the reference and the Makefile.
func TestDocs_CommandsAndFlagsExist(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	reference := map[string]string{}
	for section := range strings.SplitSeq(read("docs/cli.md"), "\n## entrapg ") {
		name, rest, _ := strings.Cut(section, "\n")
		reference[name] = rest
	}
	makefile := "\n" + read("Makefile")
	commands := 0
	for _, document := range documents(t) {
		if document == "CHANGELOG.md" { // it also mentions removed flags
			continue
		}
		for _, line := range code(read(document)) {
			if m := makeTarget.FindStringSubmatch(line); m != nil && !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s: the Makefile has no target %q", document, m[1])
			}
			m := command.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			commands++
			section, ok := reference[m[1]]
			if !ok {
				t.Errorf("%s: entrapg has no command %q", document, m[1])
				continue
			}
			own, _, _ := strings.Cut(m[2]+" ", " -- ")
			for _, flag := range longFlag.FindAllStringSubmatch(own, -1) {
				if flag[1] != "--help" && !strings.Contains(section, flag[1]) {
					t.Errorf("%s: entrapg %s has no flag %s", document, m[1], flag[1])
				}
			}
		}
	}
	if commands < 20 {
		t.Errorf("only %d commands were found", commands)
	}
}
