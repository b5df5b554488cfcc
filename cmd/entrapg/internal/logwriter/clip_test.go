package logwriter

import (
	"strings"
	"testing"
)

func TestClip_ShortensLongNames(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"", ""},
		{strings.Repeat("x", 128), strings.Repeat("x", 128)},
		{strings.Repeat("x", 129), strings.Repeat("x", 128) + "…"},
		{strings.Repeat("x", 127) + "éé", strings.Repeat("x", 127) + "…"}, // never half a character
	} {
		if got := Clip(test.name); got != test.want {
			t.Errorf("%q: got %q", test.name, got)
		}
	}
}
