package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"
)

// passwordVariable sets the password of the proxy.
const passwordVariable = proxyVariables + "PASSWORD"

// A proxyPassword is the password of clients over TCP. The zero value is none.
type proxyPassword struct {
	value string
	from  string // the setting; empty if the password is generated
}

// findPassword returns the password that ENTRAPG_PROXY_PASSWORD or a file sets.
func findPassword(file string) (proxyPassword, error) {
	value, set := os.LookupEnv(passwordVariable)
	p := proxyPassword{value, passwordVariable}
	switch {
	case set && file != "":
		return p, wrongUse(passwordVariable + " and --password-file both set the password; remove one")
	case file != "":
		content, err := os.ReadFile(file)
		if err != nil {
			return p, fmt.Errorf("--password-file: %w", err)
		}
		value = strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
		p = proxyPassword{value, "--password-file " + file}
	case !set:
		return proxyPassword{}, nil
	}
	switch {
	case value == "":
		return p, wrongUse(p.from + ": the password is empty")
	case strings.Contains(value, "\x00"):
		return p, wrongUse(p.from + ": the password must not contain a zero byte")
	}
	return p, nil
}

// generatePassword returns a new random password.
func generatePassword() proxyPassword { return proxyPassword{value: rand.Text()} }
