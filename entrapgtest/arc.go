package entrapgtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// arcKeyLife is how long a client has to read a key file.
	arcKeyLife = time.Minute

	// maxArcKeys bounds the number of key files, because clients that are not authenticated
	// cause them. A new file replaces the oldest one.
	maxArcKeys = 256
)

// arcKeyDir is the only directory in which clients look for key files.
func arcKeyDir() string {
	if runtime.GOOS == "windows" {
		return filepath.Join(os.Getenv("ProgramData"), "AzureConnectedMachineAgent", "Tokens")
	}
	return "/var/opt/azcmagent/tokens"
}

// prepareArcKeyDir creates the directory if it is missing, and checks that this process
// can write to it.
func prepareArcKeyDir() error {
	err := os.MkdirAll(arcKeyDir(), 0o755)
	var probe *os.File
	if err == nil {
		probe, err = os.CreateTemp(arcKeyDir(), "entrapg-")
	}
	if err != nil {
		return fmt.Errorf("%w; run as a user that can write there", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// An arcKey is a key and the file that contains it.
type arcKey struct{ key, path string }

// arcKeys are the keys that clients have not used yet.
type arcKeys struct {
	mu   sync.Mutex
	keys []arcKey // the oldest first
}

// challenge writes a key file and returns its path.
func (k *arcKeys) challenge() (string, error) {
	key := arcKey{rand.Text(), filepath.Join(arcKeyDir(), rand.Text()+".key")}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := os.WriteFile(key.path, []byte(key.key), 0o640); err != nil {
		return "", err
	}
	if len(k.keys) == maxArcKeys {
		os.Remove(k.keys[0].path)
		k.keys = slices.Delete(k.keys, 0, 1)
	}
	k.keys = append(k.keys, key)
	time.AfterFunc(arcKeyLife, func() { k.use(key.key) })
	return key.path, nil
}

// use reports whether a key is valid, and removes it: a key can be used once.
func (k *arcKeys) use(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.keys, func(valid arcKey) bool { return valid.key == key })
	if i < 0 {
		return false
	}
	os.Remove(k.keys[i].path)
	k.keys = slices.Delete(k.keys, i, i+1)
	return true
}

// close removes the remaining files.
func (k *arcKeys) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.keys {
		os.Remove(key.path)
	}
	k.keys = nil
	return nil
}

// An arcEndpoint answers as Azure Arc's agent does from api-version 2019-11-01 on.
type arcEndpoint struct{ tenant *Tenant }

// ServeHTTP answers a request without a key with the path of a key file.
func (e arcEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" || !strings.EqualFold(r.Header.Get("Metadata"), "true") {
		respond(e.token, imdsBody).ServeHTTP(w, r)
		return
	}
	path, err := e.tenant.arcKeys.challenge()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("WWW-Authenticate", "Basic realm="+path)
	w.WriteHeader(http.StatusUnauthorized)
}

func (e arcEndpoint) token(r *http.Request) (any, error) {
	if !strings.EqualFold(r.Header.Get("Metadata"), "true") {
		return nil, noMetadataHeader
	}
	key, basic := strings.CutPrefix(r.Header.Get("Authorization"), "Basic ")
	if !basic || !e.tenant.arcKeys.use(key) {
		return nil, wrongHeader
	}
	host := e.tenant.directory.hostWithID(r.PathValue("host"))
	body, _, err := identityEndpoint(e).token(r, host, identityAPI{since: "2019-11-01", machine: true})
	if err != nil {
		return nil, err
	}
	// Clients check that the response repeats the identity that they selected.
	for _, name := range []string{"client_id", "object_id", "msi_res_id"} {
		if selected := r.URL.Query().Get(name); selected != "" {
			body[name] = selected
		}
	}
	return body, nil
}
