package audit

import "context"

// Kinds of principal, spelled as Azure's role assignments spell them.
const (
	KindServicePrincipal = "ServicePrincipal"
	KindUser             = "User"
)

// Principal is who calls: the claims of a verified access token that
// decisions and audit lines need. The zero value is nobody and is refused
// everywhere.
type Principal struct {
	ObjectID string   // oid: object id of the service principal or user
	AppID    string   // appid or azp: the client that obtained the token
	TenantID string   // tid
	Issuer   string   // iss, as presented
	Kind     string   // KindServicePrincipal or KindUser
	Name     string   // display name or user name, for people; may be empty
	Groups   []string // object ids of groups; may be nil
}

// Request is what one HTTP request contributes to the audit lines written on
// its behalf.
type Request struct {
	ID            string // our request id (a GUID), also in the x-ms-request-id header
	CorrelationID string // the client's id if it sent one, else ID
	RemoteAddr    string // address of the peer, without port
}

type requestKey struct{}

// WithRequest returns a context whose audit lines carry the request.
func WithRequest(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestOf returns the request that [WithRequest] stored, or an empty one
// for work that no request caused, such as a background purge.
func RequestOf(ctx context.Context) Request {
	if r, _ := ctx.Value(requestKey{}).(*Request); r != nil {
		return *r
	}
	return Request{}
}
