package entrapgtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/entrapg/entrapg/internal/lockfile"
)

// A state contains the keys and secrets of a server. Each start creates a new one, except
// with Config.StateDir.
type state struct {
	Version   int
	Seed      seed   // derives IDs and secrets
	Authority []byte // certificate and key, PEM
	Signing   []byte // the tenant's key, PEM

	authority  *authority
	signingKey *rsa.PrivateKey
	dir        string   // empty without StateDir
	lock       *os.File // nil without StateDir
}

// Files in a StateDir, besides the certificate authority's.
const (
	stateFile = "state.json"
	lockName  = "lock"
	dataDir   = "data"
)

const stateVersion = 1

// newState creates a state whose certificate is valid for the given time.
func newState(validity time.Duration, signingKey func() (*rsa.PrivateKey, error)) (*state, error) {
	st := &state{Version: stateVersion, Seed: make(seed, sha256.Size)}
	_, _ = rand.Read(st.Seed) // never fails
	var err error
	if st.authority, err = newAuthority(validity); err != nil {
		return nil, err
	}
	if st.signingKey, err = signingKey(); err != nil {
		return nil, err
	}
	authorityKey, err := x509.MarshalPKCS8PrivateKey(st.authority.key)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(st.signingKey)
	if err != nil {
		return nil, err
	}
	st.Authority = append(st.authority.pem(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: authorityKey})...)
	st.Signing = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return st, nil
}

// openState reads the state in a directory. It creates a state if the directory is new or
// empty, or if dir is "".
func openState(ctx context.Context, dir string) (_ *state, err error) {
	if dir == "" {
		return newState(365*24*time.Hour, sharedKey)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	lock, err := lockState(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	path := filepath.Join(dir, stateFile)
	content, err := os.ReadFile(path)
	var st *state
	switch {
	case errors.Is(err, os.ErrNotExist):
		if st, err = newState(10*365*24*time.Hour, newKey); err != nil {
			return nil, err
		}
		if content, err = json.MarshalIndent(st, "", "\t"); err != nil {
			return nil, err
		}
		if err := writeFile(path, append(content, '\n'), 0o600); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		if st, err = readState(content); err != nil {
			return nil, fmt.Errorf(
				"%s is damaged: %w; restore the file, or remove %s to start with a new tenant and no data", path, err, dir)
		}
	}
	st.dir, st.lock = dir, lock
	return st, nil
}

// lockState returns the open lock file of a directory that is a StateDir or can
// become one.
func lockState(ctx context.Context, dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if owned, err := isOwn(dir); err != nil {
		return nil, err
	} else if !owned {
		return nil, fmt.Errorf("%s belongs to another user, who could replace its files; use a directory that you own", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	used := false
	foreign := ""
	for _, e := range entries {
		switch name, _, _ := strings.Cut(e.Name(), newSuffix); {
		case e.Name() == stateFile:
			used = true
		case name != stateFile && name != lockName && e.Name() != dataDir+newSuffix:
			foreign = e.Name()
		}
	}
	if !used && foreign != "" {
		return nil, fmt.Errorf("%s contains %s but no %s; use a new or empty directory", dir, foreign, stateFile)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, lockName)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		lock, err := lockfile.Open(path, os.O_CREATE, 0o600)
		if err == nil {
			if err = lock.Truncate(0); err == nil {
				_, err = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
			}
			return lock, err
		}
		if !errors.Is(err, lockfile.ErrLocked) {
			return nil, err
		}
		content, _ := os.ReadFile(path)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(content)))
		// If that process was killed, its PostgreSQL holds the lock and is about to exit.
		if runs(pid) || sleep(ctx, 50*time.Millisecond) != nil {
			return nil, fmt.Errorf("%s is in use by process %d; stop that process or use another directory", dir, pid)
		}
	}
}

func readState(content []byte) (*state, error) {
	st := &state{}
	if err := json.Unmarshal(content, st); err != nil {
		return nil, err
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("version %d, not %d", st.Version, stateVersion)
	}
	if len(st.Seed) != sha256.Size {
		return nil, errors.New("the seed is incomplete")
	}
	certificate, rest := pem.Decode(st.Authority)
	if certificate == nil {
		return nil, errors.New("the certificate is missing")
	}
	st.authority = &authority{}
	var err error
	if st.authority.certificate, err = x509.ParseCertificate(certificate.Bytes); err != nil {
		return nil, err
	}
	if st.authority.key, err = readKey[*ecdsa.PrivateKey](rest); err != nil {
		return nil, err
	}
	st.signingKey, err = readKey[*rsa.PrivateKey](st.Signing)
	return st, err
}

func readKey[K any](content []byte) (K, error) {
	var key K
	block, _ := pem.Decode(content)
	if block == nil {
		return key, errors.New("a key is missing")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return key, err
	}
	key, ok := parsed.(K)
	if !ok {
		return key, fmt.Errorf("a key is a %T", parsed)
	}
	return key, nil
}

// close unlocks the directory.
func (st *state) close() error {
	if st.lock == nil {
		return nil
	}
	return st.lock.Close()
}

// binFor returns a directory of PostgreSQL's programs that can use the data: bin, or
// that of another installed version.
func (st *state) binFor(ctx context.Context, bin string) (string, error) {
	if st.dir == "" {
		return bin, nil
	}
	data := filepath.Join(st.dir, dataDir)
	content, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Lstat(data); err == nil {
			return "", fmt.Errorf(
				"%s is not a PostgreSQL data directory: PG_VERSION is missing; remove it to start with no data", data)
		}
		return bin, nil
	}
	if err != nil {
		return "", err
	}
	want := strings.TrimSpace(string(content))
	candidates := []string{bin}
	if os.Getenv("ENTRAPG_POSTGRES_BIN") == "" {
		candidates = append(candidates, installed()...)
	}
	for _, bin := range candidates {
		out, _ := exec.CommandContext(ctx, filepath.Join(bin, program("postgres")), "--version").Output()
		_, version, _ := strings.Cut(string(out), ") ")
		if digits.FindString(version) == want {
			return bin, nil
		}
	}
	return "", fmt.Errorf("%s contains the data of PostgreSQL %s, but %s is another version; "+
		"install that version, or remove %s to start with no data", data, want, bin, data)
}

// prepareData removes the files of an interrupted initdb and sets the directory's owner.
func (st *state) prepareData(o *owner) error {
	if err := os.RemoveAll(filepath.Join(st.dir, dataDir+newSuffix)); err != nil {
		return err
	}
	return o.chown(st.dir)
}
