package roots

import (
	"errors"
	"os"
	"slices"
	"syscall"
	"unsafe"
)

// File returns a file with the system's roots, and a function that removes
// it if it is temporary. libpq finds no roots on Windows: version 15 does not
// support the word system, and later ones look in a directory of OpenSSL that does
// not exist. SSL_CERT_FILE replaces the system's roots.
//
// Windows adds many of its roots to the store only when a certificate needs them.
// That is not a problem for Azure's servers: the token is requested first, and the
// certificate of its endpoint has the same authority.
func File() (path string, remove func(), err error) {
	if path := os.Getenv("SSL_CERT_FILE"); isFile(path) {
		return path, func() {}, nil
	}
	certificates, err := storedRoots()
	if err != nil {
		return "", nil, err
	}
	return writeRoots(certificates)
}

// storedRoots returns the certificates in the store ROOT that may authenticate
// servers.
func storedRoots() ([][]byte, error) {
	name, err := syscall.UTF16PtrFromString("ROOT")
	if err != nil {
		return nil, err
	}
	store, err := syscall.CertOpenSystemStore(0, name)
	if err != nil {
		return nil, err
	}
	defer syscall.CertCloseStore(store, 0)
	var certificates [][]byte
	var c *syscall.CertContext
	for {
		next, err := syscall.CertEnumCertificatesInStore(store, c) // frees c
		if err != nil {                                            // after the last one
			break
		}
		c = next
		if authenticatesServers(c) {
			certificates = append(certificates, slices.Clone(unsafe.Slice(c.EncodedCert, c.Length)))
		}
	}
	if len(certificates) == 0 {
		return nil, errors.New("the certificate store ROOT has no certificates for servers; set sslrootcert to a file")
	}
	return certificates, nil
}

var certGetEnhancedKeyUsage = syscall.NewLazyDLL("crypt32.dll").NewProc("CertGetEnhancedKeyUsage")

const (
	cryptENotFound = syscall.Errno(0x80092004)
	serverAuth     = "1.3.6.1.5.5.7.3.1"
	anyUsage       = "2.5.29.37.0"
)

// authenticatesServers reports whether Windows trusts a certificate for servers:
// administrators can restrict the usage of a root, for example to code signing.
func authenticatesServers(c *syscall.CertContext) bool {
	var size uint32
	if ok, _, _ := certGetEnhancedKeyUsage.Call(uintptr(unsafe.Pointer(c)), 0, 0,
		uintptr(unsafe.Pointer(&size))); ok == 0 {
		return false
	}
	buffer := make([]uint64, (size+7)/8) // aligned as the pointers in it
	if size < uint32(unsafe.Sizeof(certEnhancedKeyUsage{})) {
		return false
	}
	usage := (*certEnhancedKeyUsage)(unsafe.Pointer(&buffer[0]))
	ok, _, err := certGetEnhancedKeyUsage.Call(uintptr(unsafe.Pointer(c)), 0, uintptr(unsafe.Pointer(usage)),
		uintptr(unsafe.Pointer(&size)))
	if ok == 0 {
		return false
	}
	if usage.count == 0 {
		return errors.Is(err, cryptENotFound) // any usage; otherwise none
	}
	for _, id := range unsafe.Slice(usage.identifiers, usage.count) {
		if oid := goString(id); oid == serverAuth || oid == anyUsage {
			return true
		}
	}
	return false
}

type certEnhancedKeyUsage struct {
	count       uint32
	identifiers **byte
}

func goString(p *byte) string {
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}
