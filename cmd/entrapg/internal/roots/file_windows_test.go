package roots

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"testing"
)

func TestRoots_ComeFromWindowsStore(t *testing.T) {
	t.Setenv("SSL_CERT_FILE", "")
	path, remove, err := File()
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			if n == 0 {
				t.Error("there are no certificates")
			}
			return
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			t.Errorf("certificate %d: %v", n, err)
		}
	}
}
