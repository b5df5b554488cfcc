package entrapgtest

import (
	"errors"
	"os"
	"path/filepath"
)

// newSuffix is in the names of incomplete files, which an interrupted start leaves behind.
const newSuffix = ".new"

// writeFile writes a file completely or not at all.
func writeFile(path string, content []byte, perm os.FileMode) error {
	// The path can be a link to another user's file. Replace it instead of writing to it.
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+newSuffix)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(perm), f.Sync(), f.Close()); err != nil {
		os.Remove(f.Name())
		return err
	}
	return os.Rename(f.Name(), path)
}
