package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestImage_ServesWithoutPrivileges runs the image that ENTRAPG_TEST_IMAGE names: make image.
func TestImage_ServesWithoutPrivileges(t *testing.T) {
	t.Parallel()
	image := os.Getenv("ENTRAPG_TEST_IMAGE")
	if image == "" {
		t.Skip("ENTRAPG_TEST_IMAGE is not set")
	}
	docker := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("docker %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if user := docker("image", "inspect", "--format", "{{.Config.User}}", image); user != "65532:65532" {
		t.Errorf("the image runs as %q", user)
	}
	s := azureServer(t)
	identity, env := identityWith(t, s, "image", true)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	content, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, content, 0o644); err != nil {
		t.Fatal(err)
	}
	dsn := strings.Replace(s.DSN(), s.CAFile(), "/ca.pem", 1) + "&entra_credential=managedidentity&entra_client_id=" + identity.ClientID
	args := []string{
		"run", "--detach", "--network", "host", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		"--volume", ca + ":/ca.pem:ro", "--env", "ENTRAPG_PROXY_TRUST=1",
	}
	for _, variable := range env {
		if strings.HasPrefix(variable, "IDENTITY_") {
			args = append(args, "--env", variable)
		}
	}
	container := docker(append(args, image, "proxy", "--listen", "127.0.0.1:0", dsn)...)
	defer exec.Command("docker", "rm", "--force", container).Run()
	logs := func() string { return docker("logs", container) }
	await(t, func() bool { return strings.Contains(logs(), "Ctrl-C stops the proxy") }, logs)
	p := &runningProxy{out: &transcript{}}
	p.out.Write([]byte(regexp.MustCompile(`(?m)^✓ .*$`).FindString(logs())))
	db := p.connect(t, "")
	if got := ask(t, db, "select session_user"); got != "image" {
		t.Errorf("got %q", got)
	}
	db.Close()
	docker("stop", container)
	if code := docker("inspect", "--format", "{{.State.ExitCode}}", container); code != "0" {
		t.Errorf("exit code %s:\n%s", code, logs())
	}
}
