package emulator

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/internal/lockfile"
)

// A settingsFile is a .env file that exists while an emulator runs. It stays open, so that
// it can be locked, and distinguished from another file with the same name.
type settingsFile struct {
	path    string
	mode    os.FileMode
	file    *os.File
	content []byte
}

// settingsHeader is the first line. The checksum of the others shows whether the file has
// been changed.
const settingsHeader = "# Written by entrapg emulator, which removes this file when it ends. SHA-256: %x\n"

// createSettingsFile creates a file. It replaces a file that an emulator has left behind,
// but never writes to an existing one, because others could own it or have it open.
func createSettingsFile(path string, mode os.FileMode) (*settingsFile, error) {
	file, err := lockfile.Open(path, os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		if err = removeStale(path); err == nil {
			file, err = lockfile.Open(path, os.O_CREATE|os.O_EXCL, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	f := &settingsFile{path: path, mode: mode, file: file}
	if err := f.write(nil); err != nil {
		return nil, errors.Join(err, f.remove())
	}
	return f, nil
}

// removeStale removes a file that an emulator has left behind. Any other is an error.
func removeStale(path string) error {
	exists := fmt.Errorf(
		"%s already exists and is not a file that an emulator left behind; remove it, or name another file", path)
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return exists
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !isSettingsFile(content) {
		return exists
	}
	file, err := lockfile.Open(path, 0, 0)
	if errors.Is(err, lockfile.ErrLocked) {
		return fmt.Errorf("%s is in use by another emulator; name another file", path)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	// Again, now that it is locked.
	opened, err := file.Stat()
	if err == nil {
		content, err = io.ReadAll(file)
	}
	if err == nil && (!os.SameFile(opened, info) || !isSettingsFile(content)) {
		err = exists
	}
	if err != nil {
		return err
	}
	if runtime.GOOS == "windows" { // which removes no open file
		file.Close()
	}
	return os.Remove(path)
}

// isSettingsFile reports whether an emulator wrote the file and it has not been
// changed since.
func isSettingsFile(content []byte) bool {
	header, rest, ok := bytes.Cut(content, []byte("\n"))
	return ok && string(header)+"\n" == fmt.Sprintf(settingsHeader, sha256.Sum256(rest))
}

// write replaces the content.
func (f *settingsFile) write(all []variable) error {
	var b strings.Builder
	for _, v := range all {
		if v.value == "" { // azidentity reports an empty AZURE_CLIENT_ID as invalid
			continue
		}
		fmt.Fprintf(&b, "%s=%s\n", v.name, quote.DotEnv(v.value))
	}
	f.content = []byte(fmt.Sprintf(settingsHeader, sha256.Sum256([]byte(b.String()))) + b.String())
	_, err := f.file.WriteAt(f.content, 0)
	err = errors.Join(f.file.Chmod(f.mode), err, f.file.Truncate(int64(len(f.content))))
	if err != nil {
		f.content = nil // so that remove expects an empty file
		_ = f.file.Truncate(0)
		return fmt.Errorf("--env-file: %w", err)
	}
	return nil
}

// remove removes the file, unless it has been replaced or changed.
func (f *settingsFile) remove() error {
	opened, err := f.file.Stat()
	named, missing := os.Lstat(f.path)
	content, unreadable := os.ReadFile(f.path)
	ours := missing == nil && err == nil && os.SameFile(opened, named) && unreadable == nil &&
		bytes.Equal(content, f.content)
	if ours && runtime.GOOS == "windows" { // which cannot remove an open file, nor replace it
		f.file.Close()
	}
	if ours {
		err = os.Remove(f.path)
	}
	f.file.Close()
	return err
}
