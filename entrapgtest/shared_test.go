package entrapgtest

import (
	"context"
	"sync"
)

// Shared starts the server that tests share if they set no faults.
var Shared = sync.OnceValues(func() (*Server, error) {
	s, err := Start(context.Background(), Config{})
	if err == nil {
		CloseShared = func() { s.Close() }
	}
	return s, err
})

// CloseShared closes the shared server if a test has started it.
var CloseShared = func() {}
