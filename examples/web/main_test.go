package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestWeb_ServesRequestsWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		url, _ := start(t, dsn, nil)
		return func() error {
			for _, path := range []string{"/livez", "/readyz", "/time"} {
				if err := getOK(url + path); err != nil {
					return err
				}
			}
			return nil
		}
	})
}

func TestWeb_FinishesRequestOnShutdown(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		return func() error {
			began, answer := make(chan bool, 1), make(chan error, 1)
			url, stop := start(t, dsn, began)
			go func() { answer <- getOK(url + "/time") }()
			<-began
			if err := stop(); err != nil {
				return err
			}
			return <-answer
		}
	})
}

func TestWeb_IsLiveButNotReadyWithoutDatabase(t *testing.T) {
	url, _ := start(t, "postgres://app:secret@127.0.0.1:1/shop?sslmode=disable&entra_credential=none", nil)
	if err := getOK(url + "/livez"); err != nil {
		t.Error(err)
	}
	if status, err := get(url + "/readyz"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d, %v", status, err)
	}
}

// start starts the service and returns its address and a function that stops it.
// It sends to began when a request arrives.
func start(t *testing.T, dsn string, began chan<- bool) (url string, stop func() error) {
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
	handler := routes(db)
	go func() {
		ended <- serve(ctx, listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if began != nil {
				began <- true
			}
			handler.ServeHTTP(w, r)
		}))
	}()
	return "http://" + listener.Addr().String(), func() error { cancel(); return <-ended }
}

func getOK(url string) error {
	status, err := get(url)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s answers with status %d", url, status)
	}
	return err
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
