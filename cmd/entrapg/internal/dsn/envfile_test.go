package dsn

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// envFile writes a file. At the end of the test, it unsets the file's variables.
func envFile(t *testing.T, content string, names ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		t.Setenv(name, "not set by the file")
	}
	return path
}

func TestEnvFile_SetsVariables(t *testing.T) {
	for name, content := range map[string]string{
		"plain":           "A=one two\nB=x#y\n",
		"byte order mark": "\ufeffA=one two\nB=x#y\n",
		"CRLF":            "A=one two\r\nB=x#y\r\n",
		"no last newline": "A=one two\nB=x#y",
		"comments":        "# first\n\nA=one two # a comment\n  # indented\nB='x#y' # why\n",
		"export":          "export A=one two\nexport  B=\"x#y\"\n",
		"spaces":          "A = one two\nB= x#y \n",
	} {
		path := envFile(t, content, "A", "B")
		if err := loadEnv(path); err != nil || os.Getenv("A") != "one two" || os.Getenv("B") != "x#y" {
			t.Errorf("%s: A=%q B=%q, %v", name, os.Getenv("A"), os.Getenv("B"), err)
		}
	}
}

func TestEnvFile_UnsetsVariablesOfDirective(t *testing.T) {
	const content = "# entrapg: unset A B\r\n# entrapg: unset\nC=1\n"
	if err := loadEnv(envFile(t, content, "A", "B", "C")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"A", "B"} {
		if value, set := os.LookupEnv(name); set {
			t.Errorf("%s=%q", name, value)
		}
	}
	if os.Getenv("C") != "1" {
		t.Errorf("C=%q", os.Getenv("C"))
	}
}

func TestEnvFile_SingleQuotesKeepValues(t *testing.T) {
	const value = `C:\new $HOME "x"`
	if err := loadEnv(envFile(t, "A='"+value+"'\n", "A")); err != nil || os.Getenv("A") != value {
		t.Errorf("%q, %v", os.Getenv("A"), err)
	}
}

func TestEnvFile_ErrorsNameFileAndLineButNoValue(t *testing.T) {
	const secret = "hunter2"
	utf16File := func(order binary.AppendByteOrder, mark bool) string {
		text := "A=" + secret + "\r\n"
		if mark {
			text = "\ufeff" + text
		}
		var b []byte
		for _, unit := range utf16.Encode([]rune(text)) {
			b = order.AppendUint16(b, unit)
		}
		return string(b)
	}
	for name, test := range map[string]struct{ content, want string }{
		"UTF-16":                         {utf16File(binary.LittleEndian, true), "is encoded in UTF-16; save it as UTF-8"},
		"UTF-16, big endian":             {utf16File(binary.BigEndian, true), "is encoded in UTF-16; save it as UTF-8"},
		"UTF-16 without byte order mark": {utf16File(binary.LittleEndian, false), "is encoded in UTF-16; save it as UTF-8"},
		"no name and value":              {"A=x\n\n" + secret + "\nB=" + secret + "\n", "line 3 is not NAME=VALUE"},
		"only a word":                    {"A=x\n" + secret, "line 2 is not NAME=VALUE"},
		"a dash in a name":               {"A=x\nB=two\nMY-NAME=" + secret + "\n", "line 3 is not NAME=VALUE"},
		"a space in a name":              {"A=x\nMY NAME=" + secret + "\n", "line 2 is not NAME=VALUE"},
		"no name":                        {"# c\n=" + secret + "\n", "line 2 is not NAME=VALUE"},
		"a quote that does not end":      {"A=x\nB='" + secret + "\nC=y\n", "line 2 is not NAME=VALUE"},
		"words after a quote":            {"A='x' " + secret + "\n", "line 1 is not NAME=VALUE"},
	} {
		path := envFile(t, test.content, "A", "B", "C")
		err := loadEnv(path)
		if err == nil || !strings.Contains(err.Error(), "--env-file: "+path) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error contains the value: %v", name, err)
		}
		if os.Getenv("A") != "not set by the file" {
			t.Errorf("%s: a file with an error sets variables", name)
		}
	}
}
