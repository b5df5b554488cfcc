package roots

import (
	"encoding/pem"
	"os"
)

// System is libpq's name for the roots of the system.
const System = "system"

// isFile reports whether path names a file.
func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

// writeRoots writes certificates to a temporary file, in PEM. remove deletes it.
func writeRoots(certificates [][]byte) (path string, remove func(), err error) {
	f, err := os.CreateTemp("", "entrapg-roots-*.pem")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.Remove(f.Name()) }
	for _, der := range certificates {
		if err == nil {
			err = pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: der})
		}
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		remove()
		return "", nil, err
	}
	return f.Name(), remove, nil
}
