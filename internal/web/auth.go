package web

import (
	"context"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/audit"
)

// AuthReason says why a bearer token was not accepted.
type AuthReason uint8

// The reasons, in the order in which they are found.
const (
	AuthMissing   AuthReason = iota + 1 // no Authorization header, or not a bearer token
	AuthMalformed                       // not a JWT we could read
	AuthKey                             // no key of ours has this kid, or the algorithm is not the key's
	AuthSignature                       // signature wrong
	AuthIssuer                          // another issuer
	AuthAudience                        // meant for another resource
	AuthExpired                         // exp has passed
	AuthNotYet                          // nbf is still to come
	AuthGone                            // the principal has been deleted or disabled since
)

// AuthError is the refusal of a bearer token. Planes turn it into a 401 with
// their own challenge. Expected and Found are claims, never the token.
type AuthError struct {
	Reason   AuthReason
	Expected string
	Found    string
}

func (e *AuthError) Error() string {
	var s string
	switch e.Reason {
	case AuthMissing:
		return "no bearer token"
	case AuthMalformed:
		return "token is malformed"
	case AuthKey:
		return "token is signed by an unknown key"
	case AuthSignature:
		return "token signature is wrong"
	case AuthIssuer:
		s = "issuer"
	case AuthAudience:
		s = "audience"
	case AuthExpired:
		return "token has expired"
	case AuthNotYet:
		return "token is not yet valid"
	case AuthGone:
		return "the token's principal does not exist any more: " + e.Found
	}
	return "token has another " + s + ": expected " + e.Expected + ", found " + e.Found
}

// Authenticator verifies a bearer token for one resource and says who calls.
// Errors are *AuthError, or failures of our own.
type Authenticator func(ctx context.Context, bearer string) (audit.Principal, error)

// Bearer returns the request's bearer token. Exactly one Authorization header
// with the Bearer scheme (any case) is accepted: two headers could be read
// differently by a proxy before us.
func Bearer(r *http.Request) (string, error) {
	h := r.Header["Authorization"]
	if len(h) != 1 {
		return "", &AuthError{Reason: AuthMissing}
	}
	scheme, token, ok := strings.Cut(h[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", &AuthError{Reason: AuthMissing}
	}
	return strings.TrimSpace(token), nil
}

// Authenticate reads the bearer token, verifies it and notes the caller on
// the log line.
func Authenticate(r *http.Request, verify Authenticator) (audit.Principal, error) {
	token, err := Bearer(r)
	if err != nil {
		return audit.Principal{}, err
	}
	p, err := verify(r.Context(), token)
	if err != nil {
		return audit.Principal{}, err
	}
	CallOf(r.Context()).NotePrincipal(p)
	return p, nil
}
