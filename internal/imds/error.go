package imds

import "fmt"

// NoEndpoint is the text of the error if no Instance Metadata Service can be reached.
const NoEndpoint = "no managed-identity endpoint answers; managed identities exist only on Azure"

// A noEndpointError reports that no Instance Metadata Service can be reached.
type noEndpointError struct{ err error }

func (e *noEndpointError) Error() string { return fmt.Sprintf("%s (%v)", NoEndpoint, e.err) }
func (e *noEndpointError) Unwrap() error { return e.err }

// NonRetriable keeps azcore from retrying.
func (*noEndpointError) NonRetriable() {}
