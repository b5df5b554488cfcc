// Package roots finds the root certificates that programs trust.
package roots

import (
	"crypto/x509"
	"os"
	"runtime"
	"sync"
)

// variable names a file with the certificates to trust instead of the
// system's.
const variable = "SSL_CERT_FILE"

// TrustCertFile makes SSL_CERT_FILE work on systems where Go ignores it. If the file
// cannot be read, the system's certificates are used, as on other systems. Go uses
// fallback roots because of the go:debug directive in package main.
func TrustCertFile() {
	if !IgnoresCertFile(runtime.GOOS) {
		return
	}
	if roots := readRoots(os.Getenv(variable)); roots != nil {
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

// IgnoresCertFile reports whether programs in Go ignore SSL_CERT_FILE on a system.
func IgnoresCertFile(goos string) bool {
	return goos == "windows" || goos == "darwin" || goos == "ios"
}
