//go:debug x509usefallbackroots=1
package main

import (
	"crypto/x509"
	"os"
	"runtime"
	"sync"
)

// certFileVariable names a file with the certificates to trust instead of the
// system's.
const certFileVariable = "SSL_CERT_FILE"

// trustCertFile makes SSL_CERT_FILE work on systems where Go ignores it. If the file
// cannot be read, the system's certificates are used, as on other systems. Go uses
// fallback roots because of the directive at the top of this file.
func trustCertFile() {
	if !ignoresCertFile(runtime.GOOS) {
		return
	}
	if roots := readRoots(os.Getenv(certFileVariable)); roots != nil {
		setRoots.Do(func() { x509.SetFallbackRoots(roots) })
	}
}

var setRoots sync.Once // a second call panics

// readRoots returns the certificates in a file, or nil if there are none.
func readRoots(path string) *x509.CertPool {
	if path == "" {
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(content) {
		return nil
	}
	return roots
}
