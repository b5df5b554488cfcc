package entrapgtest

import "testing"

func TestHostnames_URLHasNoDefaultPort(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"emulator:443": "https://emulator", "emulator:15443": "https://emulator:15443",
		"[::1]:443": "https://[::1]", "127.0.0.1:15433": "https://127.0.0.1:15433",
	} {
		if got := httpsURL(addr); got != want {
			t.Errorf("%s: %s, not %s", addr, got, want)
		}
	}
}
