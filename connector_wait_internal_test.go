package entrapg

import (
	"context"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azruntime "github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/entrapg/entrapg/internal/imds"
)

type transport func(*http.Request) (*http.Response, error)

func (f transport) Do(r *http.Request) (*http.Response, error) { return f(r) }

// unavailable returns the source of a credential whose managed identity endpoint has
// answered that it is temporarily unavailable.
func unavailable(t *testing.T) *credentialSource {
	t.Helper()
	s := &credentialSource{timeout: imds.MaxWait, monitor: &imds.Monitor{}}
	ctx, cancel := context.WithCancel(t.Context())
	options := azcore.ClientOptions{Transport: transport(func(r *http.Request) (*http.Response, error) {
		cancel() // otherwise the monitor forgets the request when it ends
		header := http.Header{"Server": {"IMDS/150"}}
		return &http.Response{StatusCode: http.StatusGone, Header: header, Body: http.NoBody, Request: r}, nil
	})}
	s.monitor.Install(&options)
	request, err := azruntime.NewRequest(ctx, http.MethodGet, "http://169.254.169.254/metadata/identity/oauth2/token")
	if err != nil {
		t.Fatal(err)
	}
	pipeline := azruntime.NewPipeline("test", "", azruntime.PipelineOptions{}, &options)
	if response, err := pipeline.Do(request); err == nil {
		response.Body.Close()
	}
	if !s.monitor.Unavailable() {
		t.Fatal("the endpoint is available")
	}
	return s
}

func TestConnector_WaitsForUnavailableEndpointAtMost90SecondsInTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait, start := newTokenWait(unavailable(t)), time.Now()
		_, done := wait.start(t.Context())
		time.Sleep(80 * time.Second)
		done()
		ctx, done := wait.start(t.Context())
		defer done()
		<-ctx.Done()
		if took := time.Since(start); took != imds.MaxWait {
			t.Errorf("both waits took %v, want %v", took, imds.MaxWait)
		}
	})
}

func TestConnector_ContextOfExtendedWaitIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		value := func() weak.Pointer[[1024]byte] {
			value := new([1024]byte)
			wait := newTokenWait(unavailable(t))
			wait.left = time.Millisecond
			ctx, done := wait.start(context.WithValue(t.Context(), key{}, value))
			defer done()
			time.Sleep(2 * wait.left)
			if ctx.Err() != nil {
				t.Error("the wait was not extended")
			}
			return weak.Make(value)
		}()
		time.Sleep(time.Second) // drops timers that are stopped
		for range 10 {
			if runtime.GC(); value.Value() == nil {
				return
			}
		}
		t.Error("the context is still in memory after the wait")
	})
}
