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

	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/internal/lockfile"
)

// A settingsFile is a .env file that exists while an emulator runs, complete from the
// beginning, so that scripts can wait for it. It stays open, so that it can be locked, and
// distinguished from another file with the same name.
type settingsFile struct {
	path    string
	name    string // path with reservedSuffix until the settings are written, then path
	mode    os.FileMode
	file    *os.File
	content []byte
}

// settingsHeader is the first line. The checksum of the others shows whether the file has
// been changed.
const settingsHeader = "# Written by entrapg emulator, which removes this file when it ends. SHA-256: %x\n"

// reservedSuffix ends the name of a file that reserves another name: while an emulator
// starts, another one that is started with the same file is an error.
const reservedSuffix = ".new"

// reserveSettingsFile reserves a path until the file is written or removed. It removes a
// file that an emulator has left behind, but never writes to an existing one, because
// others could own it or have it open.
func reserveSettingsFile(path string, mode os.FileMode) (*settingsFile, error) {
	f := &settingsFile{path: path, name: path + reservedSuffix, mode: mode}
	err := errors.Join(removeStale(path), removeStale(f.name))
	if err == nil {
		f.file, err = lockfile.Open(f.name, os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	if err := f.fill(nil); err != nil { // so that it is recognized if it is left behind
		return nil, errors.Join(err, f.remove())
	}
	return f, nil
}

func errorExists(path string) error {
	return fmt.Errorf("%s already exists and is not a file that an emulator left behind; remove it, or name another file", path)
}

// removeStale removes a file that an emulator has left behind, if it exists. Any other
// file is an error.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	exists := errorExists(path)
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
		return fmt.Errorf("%s is in use by another emulator; name another file", strings.TrimSuffix(path, reservedSuffix))
	}
	if err != nil {
		return err
	}
	defer file.Close()
	// Check again under the lock.
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
	if runtime.GOOS == "windows" { // Windows cannot remove an open file
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

// write writes the settings and makes the file visible under its path.
func (f *settingsFile) write(all []variable) error {
	err := f.fill(all)
	if err == nil {
		err = f.publish()
	}
	if err != nil {
		return fmt.Errorf("--env-file: %w", err)
	}
	return nil
}

// publish gives the file its name. It replaces no file that has appeared in the meantime.
func (f *settingsFile) publish() error {
	if runtime.GOOS != "windows" { // on Windows, an open file would keep both names
		err := os.Link(f.name, f.path)
		if errors.Is(err, os.ErrExist) {
			return errorExists(f.path)
		}
		if err == nil {
			reserved := f.name
			f.name = f.path
			return os.Remove(reserved)
		}
	}
	// Also for file systems without hard links.
	if _, err := os.Lstat(f.path); err == nil {
		return errorExists(f.path)
	}
	if runtime.GOOS == "windows" { // Windows cannot rename an open file
		f.file.Close()
	}
	if err := os.Rename(f.name, f.path); err != nil {
		return err
	}
	f.name = f.path
	if runtime.GOOS != "windows" {
		return nil
	}
	var err error
	f.file, err = lockfile.Open(f.path, 0, 0)
	return err
}

// fill replaces the content.
func (f *settingsFile) fill(all []variable) error {
	var b strings.Builder
	var unset []string
	for _, v := range all {
		if v.value == "" { // azidentity rejects empty variables
			unset = append(unset, v.name)
			continue
		}
		fmt.Fprintf(&b, "%s=%s\n", v.name, quote.DotEnv(v.value))
	}
	if len(unset) > 0 {
		fmt.Fprintf(&b, "%s%s\n", dsn.UnsetDirective, strings.Join(unset, " "))
	}
	f.content = []byte(fmt.Sprintf(settingsHeader, sha256.Sum256([]byte(b.String()))) + b.String())
	_, err := f.file.WriteAt(f.content, 0)
	err = errors.Join(f.file.Chmod(f.mode), err, f.file.Truncate(int64(len(f.content))))
	if err != nil {
		f.content = nil // so that remove expects an empty file
		_ = f.file.Truncate(0)
	}
	return err
}

// remove removes the file, unless it has been replaced or changed.
func (f *settingsFile) remove() error {
	opened, err := f.file.Stat()
	named, missing := os.Lstat(f.name)
	content, unreadable := os.ReadFile(f.name)
	ours := missing == nil && err == nil && os.SameFile(opened, named) && unreadable == nil &&
		bytes.Equal(content, f.content)
	if ours && runtime.GOOS == "windows" { // Windows cannot remove an open file
		f.file.Close()
	}
	if ours {
		err = os.Remove(f.name)
	}
	f.file.Close()
	return err
}
