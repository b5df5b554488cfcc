package entrapg

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// retryAfter returns the delay that the response behind an error requests, or zero.
func retryAfter(err error) time.Duration {
	var response *http.Response
	if failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok {
		response = failed.RawResponse
	} else if rejected, ok := errors.AsType[*azcore.ResponseError](err); ok {
		response = rejected.RawResponse
	}
	if response == nil {
		return 0
	}
	header := response.Header
	if ms, err := strconv.Atoi(cmp.Or(header.Get("Retry-After-Ms"), header.Get("X-Ms-Retry-After-Ms"))); err == nil {
		return time.Duration(ms) * time.Millisecond
	}
	after := header.Get("Retry-After")
	if s, err := strconv.Atoi(after); err == nil {
		return time.Duration(min(s, 1<<30)) * time.Second
	}
	if at, err := http.ParseTime(after); err == nil {
		return time.Until(at)
	}
	return 0
}
