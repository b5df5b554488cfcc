package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestRequestsAreServedWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		url, _ := start(t, dsn)
		return func() error {
			for _, path := range []string{"/livez", "/readyz", "/time"} {
				if status, err := get(url + path); err != nil || status != http.StatusOK {
					return fmt.Errorf("%s: %d, %v", path, status, err)
				}
			}
			return nil
		}
	})
}

func TestARequestInProgressIsFinishedAtTheEnd(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		return func() error {
			url, stop := start(t, dsn)
			answer := make(chan error, 1)
			go func() {
				status, err := get(url + "/time")
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("status %d", status)
				}
				answer <- err
			}()
			time.Sleep(100 * time.Millisecond)
			if err := stop(); err != nil {
				return err
			}
			return <-answer
		}
	})
}

func TestAnInstanceWithoutADatabaseLivesAndIsNotReady(t *testing.T) {
	url, _ := start(t, "postgres://app:secret@127.0.0.1:1/shop?sslmode=disable&entra_credential=none")
	if status, err := get(url + "/livez"); err != nil || status != http.StatusOK {
		t.Errorf("/livez: %d, %v", status, err)
	}
	if status, err := get(url + "/readyz"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d, %v", status, err)
	}
}

// start starts the service and returns its address and what ends it.
func start(t *testing.T, dsn string) (url string, stop func() error) {
	t.Helper()
	db := sql.OpenDB(entrapg.NewConnector(dsn))
	t.Cleanup(func() { db.Close() })
	db.SetMaxIdleConns(0) // so that every request logs in
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, routes(db)) }()
	return "http://" + listener.Addr().String(), func() error { cancel(); return <-ended }
}

func get(url string) (status int, err error) {
	response, err := http.Get(url)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}
