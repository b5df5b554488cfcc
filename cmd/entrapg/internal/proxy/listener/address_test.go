package listener

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestParse_AcceptsPortsHostsAndPaths(t *testing.T) {
	for _, test := range []struct {
		text, want string
		local      bool
		host       string // for clients
	}{
		{"5433", "127.0.0.1:5433", true, "127.0.0.1"},
		{"127.0.0.1:5433", "127.0.0.1:5433", true, "127.0.0.1"},
		{"127.0.0.1", "127.0.0.1:5432", true, "127.0.0.1"},
		{"127.0.0.2:1", "127.0.0.2:1", true, "127.0.0.2"},
		{"localhost", "localhost:5432", true, "localhost"},
		{"localhost:5433", "localhost:5433", true, "localhost"},
		{"[::1]:5433", "[::1]:5433", true, "::1"},
		{"[::1]", "[::1]:5432", true, "::1"},
		{"::1", "[::1]:5432", true, "::1"},
		{"[::ffff:127.0.0.1]:5433", "[::ffff:127.0.0.1]:5433", true, "::ffff:127.0.0.1"},
		{":5433", ":5433", false, "127.0.0.1"},
		{"*:5433", ":5433", false, "127.0.0.1"},
		{"*", ":5432", false, "127.0.0.1"},
		{"0.0.0.0:5433", "0.0.0.0:5433", false, "127.0.0.1"},
		{"[::]:5433", "[::]:5433", false, "::1"},
		{"192.0.2.1:5433", "192.0.2.1:5433", false, "192.0.2.1"},
		{"[fe80::1%eth0]:5433", "[fe80::1%eth0]:5433", false, "fe80::1%eth0"},
		{"db.internal:5433", "db.internal:5433", false, "db.internal"},
		{"localhost.example:5433", "localhost.example:5433", false, "localhost.example"},
	} {
		a, err := Parse(test.text, 5432)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
			continue
		}
		if a.String() != test.want || a.Local() != test.local || a.Private() || a.ClientHost() != test.host {
			t.Errorf("%s: %+v is %s, local %t, private %t, for clients %s", test.text, a, a, a.Local(), a.Private(), a.ClientHost())
		}
		if again, err := Parse(a.String(), 1); err != nil || again != a {
			t.Errorf("%s: String is not parsed to the same address: %+v %v", test.text, again, err)
		}
	}
}

func TestParse_AcceptsUnixSockets(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Unix sockets are not supported on Windows")
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		text, want, host string
		port             uint16
	}{
		{"/run/entrapg", "/run/entrapg/.s.PGSQL.5432", "/run/entrapg", 5432},
		{"/run/entrapg/", "/run/entrapg/.s.PGSQL.5432", "/run/entrapg", 5432},
		{"/run/entrapg/.s.PGSQL.6000", "/run/entrapg/.s.PGSQL.6000", "/run/entrapg", 6000},
		{"/run/shop.sock", "/run/shop.sock", "/run/shop.sock", 5432},
		{"/run/shop.sock/", "/run/shop.sock/.s.PGSQL.5432", "/run/shop.sock", 5432},
		{".", filepath.Join(here, ".s.PGSQL.5432"), here, 5432},
		{"./a", filepath.Join(here, "a/.s.PGSQL.5432"), filepath.Join(here, "a"), 5432},
		{".s.PGSQL.7000", filepath.Join(here, ".s.PGSQL.7000"), here, 7000},
	} {
		a, err := Parse(test.text, 5432)
		if err != nil || a.String() != test.want || a.Port != test.port || !a.Local() || !a.Private() || a.ClientHost() != test.host {
			t.Errorf("%s: %+v, for clients %s, private %t: %v", test.text, a, a.ClientHost(), a.Private(), err)
		}
	}
	if runtime.GOOS != "linux" {
		return
	}
	a, err := Parse("@entrapg", 5432)
	if err != nil || a.String() != "@entrapg/.s.PGSQL.5432" || !a.Local() || a.Private() || a.ClientHost() != "@entrapg" {
		t.Errorf("abstract socket: %+v, private %t: %v", a, a.Private(), err)
	}
}

func TestParse_RejectsInvalidAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "is empty",
		"65536":                        "from 1 to 65535",
		"-1":                           "from 1 to 65535",
		"127.0.0.1:":                   "invalid port",
		"127.0.0.1:http":               "invalid port",
		"127.0.0.1:70000":              "from 1 to 65535",
		"a b:5432":                     "invalid host",
		"a:b:5432":                     "invalid address",
		"a\x00b":                       "invalid address",
		"postgres:":                    "invalid port",
		"@":                            "abstract",
		"/run/.s.PGSQL.x":              "does not end in a port",
		"/" + strings.Repeat("x", 200): "system allows",
	} {
		a, err := Parse(text, 5432)
		if err == nil {
			t.Errorf("%q: accepted as %+v", text, a)
		} else if runtime.GOOS == "linux" && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"5433", "[::1]:5432", "/run/x", "@a", "localhost:1", "*:2", "a=b"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := Parse(text, 5432)
		if err != nil {
			return
		}
		if again, err := Parse(a.String(), 1); err != nil || again != a {
			t.Errorf("%q: %+v, but its String is parsed to %+v, %v", text, a, again, err)
		}
		if a.Local() && a.Path == "" && a.Host != "localhost" && !isLoopback(a.Host) {
			t.Errorf("%q: %+v is not local", text, a)
		}
	})
}

func TestAddress_ConflictsWithAddressesItIncludes(t *testing.T) {
	for _, test := range []struct {
		a, b      string
		conflicts bool
	}{
		{"5432", "127.0.0.1:5432", true},
		{"5432", "localhost:5432", true},
		{"[::1]:5432", "localhost:5432", true},
		{":5432", "192.0.2.1:5432", true},
		{":5432", "[::1]:5432", true},
		{"[::]:5432", "5432", true},
		{"0.0.0.0:5432", "localhost:5432", true},
		{"0.0.0.0:5432", "5432", true},
		{"0.0.0.0:5432", "[::1]:5432", false},
		{"5432", "5433", false},
		{"5432", "127.0.0.2:5432", false},
		{"5432", "[::1]:5432", false},
		{"0", "0", false},
		{":0", "0", false},
	} {
		a, err := Parse(test.a, 5432)
		b, err2 := Parse(test.b, 5432)
		if err != nil || err2 != nil || a.Conflicts(b) != test.conflicts || b.Conflicts(a) != test.conflicts {
			t.Errorf("%s and %s: %t, want %t, %v, %v", a, b, a.Conflicts(b), test.conflicts, err, err2)
		}
	}
}
