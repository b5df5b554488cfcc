//go:build !windows

package entrapgtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A template is a copy of the files of initdb, in the user's cache directory, where
// other users cannot write. It contains no password. A nil template does not exist.
type template struct {
	dir string
}

// A manifest is written last, so that a template with a manifest is complete. Its sizes
// detect files that were lost in a crash of the machine.
type manifest struct {
	Files int
	Bytes int64
}

const manifestFile = "manifest.json"

// templateLife is how long an unused template is kept.
const templateLife = 30 * 24 * time.Hour

// findTemplate returns the template for the programs in bin, which need not exist yet. It
// returns nil if no directory for it is safe.
func findTemplate(ctx context.Context, bin string) *template {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil
	}
	root := filepath.Join(cache, "entrapgtest")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil
	}
	info, err := os.Lstat(root)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return nil
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
		return nil
	}

	hash := sha256.New()
	fmt.Fprintln(hash, initdbArgs)
	for _, name := range []string{"postgres", "initdb"} {
		path := resolve(filepath.Join(bin, name))
		info, err := os.Stat(path)
		if err != nil {
			return nil
		}
		fmt.Fprintln(hash, path, info.Size(), info.ModTime().UnixNano())
	}
	return &template{filepath.Join(root, hex.EncodeToString(hash.Sum(nil)[:12]))}
}

// copyTo copies the template to a new directory of the owner.
func (t *template) copyTo(data string, o *owner) error {
	if t == nil {
		return fs.ErrNotExist
	}
	content, err := os.ReadFile(filepath.Join(t.dir, manifestFile))
	if err != nil {
		return err
	}
	var want manifest
	if err := json.Unmarshal(content, &want); err != nil {
		return err
	}
	got, err := copyTree(filepath.Join(t.dir, dataDir), data, o)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the template %s is damaged", t.dir)
	}
	now := time.Now()
	_ = os.Chtimes(t.dir, now, now)
	return nil
}

// discard removes the template, which did not work, and the files that copyTo created.
func (t *template) discard(data string) error {
	if t == nil {
		return nil
	}
	return errors.Join(os.RemoveAll(data), os.RemoveAll(t.dir))
}

// store creates a template from the files of initdb. It ignores errors: the next start
// runs initdb again. If several processes store the same template, the first one wins.
func (t *template) store(data string) {
	if t == nil {
		return
	}
	root := filepath.Dir(t.dir)
	entries, _ := os.ReadDir(root)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > templateLife {
			os.RemoveAll(filepath.Join(root, e.Name()))
		}
	}
	dir, err := newTempDir(root)
	if err != nil {
		return
	}
	defer dir.remove()
	copied := filepath.Join(dir.path, "template")
	if err := os.Mkdir(copied, 0o700); err != nil {
		return
	}
	m, err := copyTree(data, filepath.Join(copied, dataDir), &owner{})
	if err != nil {
		return
	}
	content, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(filepath.Join(copied, manifestFile), content, 0o600)
	}
	if err == nil {
		_ = os.Rename(copied, t.dir)
	}
}

// copyTree copies directories and regular files. Other kinds of files are errors.
func copyTree(from, to string, o *owner) (manifest, error) {
	var m manifest
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case e.IsDir():
			if err := os.Mkdir(target, 0o700); err != nil {
				return err
			}
		case e.Type().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := os.WriteFile(target, content, 0o600); err != nil {
				return err
			}
			m.Files++
			m.Bytes += int64(len(content))
		default:
			return fmt.Errorf("%s is neither a file nor a directory", path)
		}
		return o.chown(target)
	})
	return m, err
}
