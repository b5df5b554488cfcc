package doctor

import (
	"crypto/x509"
	"regexp"
	"slices"

	"github.com/entrapg/entrapg/internal/inspect"
)

const hostLabel = `[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?`

// hostName matches names of hosts. The last label begins with a letter, because
// resolvers take numbers for addresses.
var (
	hostName   = regexp.MustCompile(`^(` + hostLabel + `\.)*[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	serverPart = regexp.MustCompile(`^` + hostLabel + `$`)
)

func isHostName(s string) bool { return len(s) <= 253 && hostName.MatchString(s) }

// isAzure reports whether a host is one of Azure's, by package entrapg's table.
func isAzure(host string) bool {
	login, err := inspect.Open("sslmode=verify-full entra_credential=default host=" + host)
	if err != nil {
		return false
	}
	defer login.Close()
	return login.Azure
}

// verifies reports whether a chain leads to one of the roots. It ignores names.
func verifies(chain []*x509.Certificate, roots *x509.CertPool) bool {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
	return err == nil
}

// hostToUse returns the name in a verified certificate that a DSN can use instead
// of its host, or "". Public authorities issue certificates to anyone for their own
// names, so a name outside Azure is used only if the program chose the authority.
func hostToUse(c *x509.Certificate, chosenRoots bool) string {
	names := slices.DeleteFunc(slices.Clone(c.DNSNames), func(name string) bool { return !isHostName(name) })
	if i := slices.IndexFunc(names, isAzure); i >= 0 {
		return names[i]
	}
	if chosenRoots && len(names) > 0 {
		return names[0]
	}
	return ""
}
