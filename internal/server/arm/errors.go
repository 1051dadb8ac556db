package arm

import (
	"errors"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/web"
)

// Codes that more than one file uses.
const (
	codeContent  = "InvalidRequestContent"
	codeNotFound = "ResourceNotFound"
)

// wireError is the body of every refusal.
type wireError struct {
	Error ErrorDetail `json:"error"`
}

// fail writes err in ARM's body. What is not a fault is a 500 without text.
// The code is in a header too, where clients find it when the body is absent,
// as after HEAD.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	setHeaders(w, r)
	status, body := http.StatusInternalServerError, wireError{DetailOf(err)}
	if f, ok := fault.As(err); ok {
		status = f.Kind.Status()
	}
	if u, ok := errors.AsType[*unauthorized](err); ok {
		w.Header()["Www-Authenticate"] = []string{u.challenge(r)}
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("X-Ms-Error-Code", body.Error.Code)
	if r.Method == http.MethodHead {
		w.WriteHeader(status)
		return
	}
	_ = web.WriteJSON(w, status, body)
}

// unauthorized is a 401 with the challenge that tells a client where to get
// a token.
type unauthorized struct {
	error   // the fault
	tenant  string
	message string
}

func (u *unauthorized) Unwrap() error { return u.error }

// challenge is the WWW-Authenticate header. Clients find the tenant of a
// subscription in its authorization_uri. No value holds a quote.
func (u *unauthorized) challenge(r *http.Request) string {
	tenant := u.tenant
	if tenant == "" {
		tenant = "common"
	}
	return `Bearer authorization_uri="` + web.CallOf(r.Context()).Names.Login + "/" + tenant +
		`", error="invalid_token", error_description="` + strings.NewReplacer(`"`, "'", "\r", " ", "\n", " ").Replace(u.message) + `"`
}

// unauthenticated turns the refusal of a token into ARM's 401. Other errors
// pass. tenant owns what was asked for; it may be empty.
func unauthenticated(err error, tenant string) error {
	a, ok := errors.AsType[*web.AuthError](err)
	if !ok {
		return err
	}
	code, message := "InvalidAuthenticationToken", "The access token is invalid."
	switch a.Reason {
	case web.AuthMissing:
		code, message = "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing or has no bearer token."
	case web.AuthMalformed:
		message = "The received access token is not valid: it is not a well-formed JWT."
	case web.AuthAudience:
		code, message = "InvalidAuthenticationTokenAudience", "The access token has been obtained for wrong audience or resource '"+clip(a.Found)+"'. It should match with one of the allowed audiences '"+clip(a.Expected)+"'."
	case web.AuthIssuer:
		code, message = "InvalidAuthenticationTokenTenant", "The access token is from the wrong issuer '"+clip(a.Found)+"'."
	case web.AuthExpired:
		code, message = "ExpiredAuthenticationToken", "The access token has expired."
	case web.AuthNotYet:
		message = "The access token is not yet valid."
	}
	return &unauthorized{error: fault.Wrap(err, fault.Unauthenticated, code, "%s", message), tenant: tenant, message: message}
}

// wrongTenant refuses a principal of another tenant than the subscription's.
func wrongTenant(n *web.Names, p audit.Principal, tenant string) error {
	message := "The access token is from the wrong issuer '" + n.IssuerV1(clip(p.TenantID)) + "'. It must match the tenant '" + n.IssuerV1(tenant) +
		"' associated with this subscription. Use the authority '" + n.Login + "/" + tenant + "' to get the token."
	return &unauthorized{error: fault.New(fault.Unauthenticated, "InvalidAuthenticationTokenTenant", "%s", message), tenant: tenant, message: message}
}

// notAllowed is ARM's refusal of an authenticated caller. The decision behind
// it is on the audit line and in the log, not in the answer.
func notAllowed(cause error, p audit.Principal, action, object string) error {
	client := p.AppID
	if p.Kind == audit.KindUser && p.Name != "" {
		client = p.Name
	}
	if client == "" {
		client = p.ObjectID
	}
	return fault.Wrap(cause, fault.Forbidden, "AuthorizationFailed",
		"The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid. If access was recently granted, please refresh your credentials.",
		clip(client), clip(p.ObjectID), action, object)
}

// notFound says that an item does not exist.
func notFound(id ID) error {
	switch {
	case strings.EqualFold(id.Type(), typeGroup):
		return fault.NotFound("ResourceGroupNotFound", "Resource group '%s' could not be found.", clip(id.Name()))
	case id.Group() == "":
		return fault.NotFound(codeNotFound, "The Resource '%s' was not found.", clip(id.String()))
	}
	return fault.NotFound(codeNotFound, "The Resource '%s' under resource group '%s' was not found.", clip(relative(id)), clip(id.Group()))
}

// relative is an id as messages show it: namespace, then types and names.
func relative(id ID) string {
	c := id.last()
	s := c.namespace
	for i, t := range c.types {
		s += "/" + t
		if i < len(c.names) {
			s += "/" + c.names[i]
		}
	}
	return s
}
