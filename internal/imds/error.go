package imds

import "fmt"

// NoEndpoint is the text of the error if no Instance Metadata Service can be reached.
const NoEndpoint = "no managed identity endpoint answers; managed identities exist only on Azure"

// NotAzure is part of the error's text if something other than Azure answers at the
// address of the Instance Metadata Service.
const NotAzure = "is not Azure's metadata service"

// A noEndpointError reports that no Instance Metadata Service can be reached.
type noEndpointError struct{ err error }

func (e *noEndpointError) Error() string { return fmt.Sprintf("%s (%v)", NoEndpoint, e.err) }
func (e *noEndpointError) Unwrap() error { return e.err }

// NonRetriable keeps azcore from retrying.
func (*noEndpointError) NonRetriable() {}

// A foreignAnswerError reports an answer from the address of the Instance Metadata
// Service that does not come from that service.
type foreignAnswerError struct{ status int }

func (e *foreignAnswerError) Error() string {
	return fmt.Sprintf("%s answers %s and %s; managed identities exist only on Azure",
		host, statusText(e.status), NotAzure)
}

// NonRetriable keeps azcore from retrying.
func (*foreignAnswerError) NonRetriable() {}
