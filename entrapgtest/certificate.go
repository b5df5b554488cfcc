package entrapgtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// An authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

const authorityName = "entrapgtest CA"

func newAuthority(validity time.Duration) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: authorityName},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(validity),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return &authority{certificate, key}, err
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// publish writes the certificate to a file. It replaces the certificate of an earlier
// server, but no other file. It returns a function that removes the file.
func (a *authority) publish(path string) (undo func() error, err error) {
	content, err := os.ReadFile(path)
	if err == nil && !isCA(content) {
		return nil, fmt.Errorf(
			"%s already exists and is not the certificate of an earlier server; remove it or set another file", path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := writeFile(path, a.pem(), 0o644); err != nil {
		return nil, err
	}
	return func() error {
		content, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(content, a.pem()) { // another server has replaced it
			return nil
		}
		return os.Remove(path)
	}, nil
}

// isCA reports whether content is a certificate that newAuthority created.
func isCA(content []byte) bool {
	block, rest := pem.Decode(content)
	if block == nil || len(rest) > 0 {
		return false
	}
	c, err := x509.ParseCertificate(block.Bytes)
	return err == nil && c.IsCA && c.Subject.CommonName == authorityName
}

// A certificate is the server's certificate and the authority that issued it.
type certificate struct {
	authority *x509.Certificate
	tls       *tls.Config // of the PostgreSQL front
}

// newCertificate issues a certificate for host names and IP addresses.
func newCertificate(a *authority, hosts []string) (*certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "entrapgtest"},
		NotBefore:    a.certificate.NotBefore,
		NotAfter:     a.certificate.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	// Some clients reject certificates that are valid for longer than a year.
	if latest := time.Now().AddDate(1, 0, 0); latest.Before(template.NotAfter) {
		template.NotAfter = latest
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return &certificate{
		authority: a.certificate,
		tls: &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key}},
			NextProtos:   []string{"postgresql"},
			MinVersion:   tls.VersionTLS12,
		},
	}, nil
}
