//go:build !windows

package roots

import (
	"os"
)

// bundles are the files with the system's roots, as in crypto/x509.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Alpine, Arch
	"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, Red Hat
	"/etc/ssl/ca-bundle.pem",                            // openSUSE
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Red Hat
	"/etc/ssl/cert.pem",                                 // macOS, Alpine
}

// File returns a file with the system's roots, which every libpq can read,
// and a function that removes it if it is temporary. SSL_CERT_FILE replaces the
// system's file. If there is no file, File returns the word "system", for which
// libpq 16 and newer use the roots of OpenSSL.
func File() (path string, remove func(), err error) {
	for _, path := range append([]string{os.Getenv("SSL_CERT_FILE")}, bundles...) {
		if isFile(path) {
			return path, func() {}, nil
		}
	}
	return System, func() {}, nil
}
