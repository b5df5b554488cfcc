package pgwire

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
)

// rfc7677 returns the exchange of the example in RFC 7677, section 3.
func rfc7677(t *testing.T, password string) *scramExchange {
	t.Helper()
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	const nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	return &scramExchange{
		verifier: newVerifier(password, salt, ScramIterations), header: "n,,", nonce: nonce, clientFirst: "n=user,r=rOprNGfwEbeRWgbNEkqO",
		server: "r=" + nonce + ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
	}
}

const rfc7677Final = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="

func TestVerifier_AgreesWithRFC7677(t *testing.T) {
	got, err := rfc7677(t, "pencil").final(rfc7677Final)
	if want := "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="; got != want || err != nil {
		t.Errorf("signature %s, want %s; error %v", got, want, err)
	}
}

func TestVerifier_EncodesAsPostgreSQL(t *testing.T) {
	const want = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==" +
		"$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	if got := rfc7677(t, "pencil").verifier.Encode(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVerifier_RejectsWrongProofs(t *testing.T) {
	for name, test := range map[string]struct{ password, final string }{
		"another password":  {"Pencil", rfc7677Final},
		"a changed proof":   {"pencil", strings.Replace(rfc7677Final, "dHzb", "dHzc", 1)},
		"a zero proof":      {"pencil", rfc7677Final[:strings.Index(rfc7677Final, "p=")+2] + strings.Repeat("A", 43) + "="},
		"a changed message": {"pencil", strings.Replace(rfc7677Final, ",p=", ",x=1,p=", 1)},
	} {
		if got, err := rfc7677(t, test.password).final(test.final); !errors.Is(err, ErrWrongPassword) {
			t.Errorf("%s: %q, error %v", name, got, err)
		}
	}
	for name, final := range map[string]string{
		"channel binding": strings.Replace(rfc7677Final, "biws", "eSws", 1),
		"another nonce":   strings.Replace(rfc7677Final, "$k0", "$k1", 1),
		"no proof":        rfc7677Final[:strings.Index(rfc7677Final, ",p=")],
		"a short proof":   strings.Replace(rfc7677Final, "dHzb", "", 1),
		"a long proof":    rfc7677Final + "AAAA",
		"nothing":         "",
	} {
		var invalid *Error
		if got, err := rfc7677(t, "pencil").final(final); !errors.As(err, &invalid) || got != "" {
			t.Errorf("%s: %q, error %v", name, got, err)
		}
	}
}

func TestVerifier_AcceptsNormalizations(t *testing.T) {
	for password, want := range map[string]int{
		"ascii": 1, "Å": 1, "\u212b": 2, "\ufb01": 2, "a\u00a0b": 2,
		"\xff": 1, "\u00ad": 1,
	} {
		if got := len(newVerifier(password, []byte("salt"), 1).keys); got != want {
			t.Errorf("%q: %d forms, want %d", password, got, want)
		}
		if forms := normalizations(password); slices.Contains(forms, "") {
			t.Errorf("%q: the empty password is accepted", password)
		}
	}
}
