package entrapgtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// arcKeyLife is how long a client has to read a key file.
const arcKeyLife = time.Minute

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

// arcKeys are the key files that clients have not used yet.
type arcKeys struct {
	mu    sync.Mutex
	files map[string]string // by key
}

// challenge writes a key file and returns its path.
func (k *arcKeys) challenge() (string, error) {
	key, path := rand.Text(), filepath.Join(arcKeyDir(), rand.Text()+".key")
	if err := os.WriteFile(path, []byte(key), 0o640); err != nil {
		return "", err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.files == nil {
		k.files = map[string]string{}
	}
	k.files[key] = path
	time.AfterFunc(arcKeyLife, func() { k.use(key) })
	return path, nil
}

// use reports whether a key is valid, and removes it: a key can be used once.
func (k *arcKeys) use(key string) bool {
	k.mu.Lock()
	path, valid := k.files[key]
	delete(k.files, key)
	k.mu.Unlock()
	if valid {
		os.Remove(path)
	}
	return valid
}

// close removes the remaining files.
func (k *arcKeys) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, path := range k.files {
		os.Remove(path)
	}
	k.files = nil
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
