package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

// startEmulator starts the emulator in a container and sets the environment variables
// with which a program uses it as an identity.
func startEmulator(t *testing.T, identity string) {
	t.Helper()
	image := os.Getenv("ENTRAPG_TEST_EMULATOR_IMAGE")
	if image == "" {
		t.Skip("ENTRAPG_TEST_EMULATOR_IMAGE is not set; for example, set it to ghcr.io/entrapg/emulator:latest")
	}
	testcontainers.SkipIfProviderIsNotHealthy(t)
	container, err := testcontainers.Run(t.Context(), image,
		testcontainers.WithCmd("--identity", identity),
		testcontainers.WithExposedPorts("15432/tcp", "15433/tcp", "15434/tcp"),
		testcontainers.WithWaitStrategy(wait.ForHealthCheck()))
	testcontainers.CleanupContainer(t, container)
	if err != nil {
		t.Fatal(err)
	}
	copied := func(path string) string {
		file, err := container.CopyFileFromContainer(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		content, err := io.ReadAll(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}

	// The settings are for other containers. On this machine, ports and files differ.
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, []byte(copied("/run/entrapg/ca.pem")), 0o600); err != nil {
		t.Fatal(err)
	}
	fromHere := []string{"/run/entrapg/ca.pem", caFile}
	for _, port := range []string{"15432", "15433", "15434"} {
		endpoint, err := container.PortEndpoint(t.Context(), port+"/tcp", "")
		if err != nil {
			t.Fatal(err)
		}
		fromHere = append(fromHere, "emulator:"+port, endpoint)
	}
	settings := strings.NewReplacer(fromHere...).Replace(copied("/run/entrapg/emulator.env"))
	for line := range strings.Lines(settings) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), "="); found {
			t.Setenv(name, strings.Trim(value, "'"))
		}
	}
}

// The image of the emulator needs no PostgreSQL on this machine, and no Go: tests in other
// languages do the same.
func TestTestcontainers_LogsInToEmulator(t *testing.T) {
	startEmulator(t, "shop-api")
	db := open(os.Getenv("DATABASE_URL"))
	defer db.Close()
	user, err := whoAmI(t.Context(), db)
	if err != nil || user != "shop-api" {
		t.Errorf("logged in as %q, %v", user, err)
	}
}
