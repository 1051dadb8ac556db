package keyvault

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web"
)

// Codes of the data plane that are used in more than one place.
const (
	codeBadParameter   = "BadParameter"
	codeConflict       = "Conflict"
	codeForbidden      = "Forbidden"
	codeSecretNotFound = "SecretNotFound"
	codeUnauthorized   = "Unauthorized"
)

// help is how the service's messages end that people search for.
const help = " For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid="

func badParameter(format string, args ...any) error {
	return fault.BadRequest(codeBadParameter, format, args...)
}

func badName() error {
	return badParameter("The name in the request is not valid: it must match ^[0-9a-zA-Z-]+$ and have at most 127 characters.")
}

func vaultNotFound(name string) error {
	return fault.NotFound("VaultNotFound", "The vault '%s' was not found.", name)
}

func secretNotFound(name, id string) error {
	if id != "" {
		name += "/" + id
	}
	return fault.NotFound(codeSecretNotFound,
		"A secret with (name/id) %s was not found in this key vault. If you recently deleted this secret you may be able to recover it using the correct recovery command."+help+"2125182", name)
}

func deletedSecretNotFound(name string) error {
	return fault.NotFound(codeSecretNotFound, "Deleted Secret not found: %s", name)
}

func secretDisabled(operation string) error {
	return &fault.Error{
		Kind: fault.Forbidden, Code: codeForbidden, Inner: "SecretDisabled",
		Message: "Operation " + operation + " is not allowed on a disabled secret.",
	}
}

func restoreConflict(name string) error {
	return fault.Conflict(codeConflict,
		"There was a conflict restoring the secret '%s'. This can happen if either: a second secret with the same name was created since, or the secret was never deleted.", name)
}

// caller is how messages name who called.
func caller(p *audit.Principal) string {
	return "appid=" + p.AppID + ";oid=" + p.ObjectID + ";iss=" + p.Issuer
}

// denied words a refusal of rbac as the service does, by the vault's
// permission model. What is not a refusal is returned as it is.
func denied(err error, vault *Vault) error {
	d, ok := errors.AsType[*rbac.Denied](err)
	if !ok {
		return err
	}
	f := &fault.Error{Kind: fault.Forbidden, Code: codeForbidden, Err: err}
	if d.ByPolicies {
		f.Inner = "AccessDenied"
		f.Message = fmt.Sprintf("The user, group or application '%s' does not have %s %s permission on key vault '%s'."+help+"2125287",
			caller(&d.Principal), d.PolicyKind, d.PolicyPermission, vault.label())
		return f
	}
	f.Inner = "ForbiddenByRbac"
	f.Message = fmt.Sprintf("Caller is not authorized to perform action on resource.\r\n"+
		"If role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\n"+
		"Caller: %s\r\nAction: '%s'\r\nResource: '%s'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\nVault: %s\r\n",
		caller(&d.Principal), d.Action, strings.ToLower(d.Object), vault.label())
	return f
}

// unauthorised is a refused token, with the tenant whose tokens the vault
// takes.
type unauthorised struct {
	tenant string
	err    *web.AuthError
}

func (e *unauthorised) Error() string { return e.err.Error() }

func (e *unauthorised) Unwrap() error { return e.err }

// authMessage is the service's message for a refused token. Clients match on
// the codes of the ones that are known; the others are told apart by text.
func authMessage(e *web.AuthError) string {
	switch e.Reason {
	case web.AuthMissing:
		return "AKV10000: Request is missing a Bearer or PoP token."
	case web.AuthMalformed:
		return "AKV10001: The token in the request could not be read."
	case web.AuthKey:
		return "AKV10046: Unable to resolve the key used for signature validation."
	case web.AuthSignature:
		return "AKV10047: The signature of the token is not valid."
	case web.AuthIssuer:
		return "AKV10032: Invalid issuer. Expected one of " + e.Expected + ", found " + e.Found + "."
	case web.AuthAudience:
		return "AKV10022: Invalid audience. Expected " + e.Expected + ", found: " + e.Found + "."
	case web.AuthExpired:
		return "AKV10048: Lifetime validation failed. The token is expired."
	case web.AuthNotYet:
		return "AKV10049: Lifetime validation failed. The token is not yet valid."
	default:
		return "AKV10050: The principal of the token is not known any more."
	}
}

// errorBody is the body of every refusal.
type errorBody struct {
	Error errorDetail `json:"error"`
}

type errorDetail struct {
	Code    string      `json:"code"`
	Message string      `json:"message"`
	Inner   *innerError `json:"innererror,omitempty"`
}

type innerError struct {
	Code string `json:"code"`
}

// fail writes the plane's body for an error.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	call := web.CallOf(r.Context())
	setHeaders(w.Header(), call, r, h.Version)
	status, detail := describe(err)
	switch status {
	case http.StatusUnauthorized:
		if u, ok := errors.AsType[*unauthorised](err); ok {
			w.Header()["Www-Authenticate"] = []string{challenge(call.Names, u.tenant)}
		}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header()["Retry-After"] = []string{"1"}
	}
	body, err := json.Marshal(errorBody{detail})
	if err != nil {
		body = []byte(`{"error":{"code":"InternalServerError","message":""}}`) // strings always marshal
	}
	_ = web.WriteJSONBytes(w, status, body)
}

// describe maps an error to what the client sees of it.
func describe(err error) (status int, d errorDetail) {
	if u, ok := errors.AsType[*unauthorised](err); ok {
		return http.StatusUnauthorized, errorDetail{Code: codeUnauthorized, Message: authMessage(u.err)}
	}
	f, ok := fault.As(err)
	if !ok || f.Kind == fault.Internal {
		return http.StatusInternalServerError, errorDetail{Code: "InternalServerError", Message: "An internal error occurred. The request id identifies it in the server's log."}
	}
	d = errorDetail{Code: f.Code, Message: f.Message}
	if f.Kind == fault.Invalid && f.Code == "BadRequest" {
		d.Code = codeBadParameter // the edge's code for what no plane should see
	}
	if f.Inner != "" {
		d.Inner = &innerError{f.Inner}
	}
	return f.Kind.Status(), d
}

// challenge tells a client where to get a token, and for what. SDKs split it
// at blanks and "=", so its values have neither.
func challenge(n *web.Names, tenant string) string {
	return `Bearer authorization="` + n.Login + "/" + tenant + `", resource="` + n.VaultResource() + `"`
}
