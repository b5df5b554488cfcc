package main

import (
	"errors"
	"testing"
	"time"

	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestRiver_RunsJobsWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		pool, err := open(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan mail, 1)
		client, err := start(t.Context(), pool, func(m mail) { sent <- m })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			<-client.Stopped() // the test's context has ended
			pool.Close()
		})
		return func() error {
			pool.Reset() // so that the next query logs in
			if _, err := client.Insert(t.Context(), mail{To: "alice@contoso.com"}, nil); err != nil {
				return err
			}
			select {
			case <-sent:
				return nil
			case <-time.After(10 * time.Second):
				return errors.New("the job did not run")
			}
		}
	})
}
