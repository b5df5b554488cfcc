package main

import (
	"testing"
)

func TestExec_SSLCertFileReplacesSystemRoots(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "roots", true)
	needsCAVariable(t, env)
	// The server's certificate is not verified by sslrootcert, but by SSL_CERT_FILE.
	r := runAs(t, append(env, "SSL_CERT_FILE="+s.CAFile()), "exec", "host=localhost port="+portOf(t, s)+" dbname=postgres sslrootcert=system",
		"--", installed(t, "psql"), "-XAtc", "select session_user")
	if r.code != 0 || r.stdout != "roots\n" {
		t.Errorf("%+v", r)
	}
}
