package sts

import (
	"fmt"
	"net/http"
	"time"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/text"
)

// Error is a refusal in Entra's terms.
type Error struct {
	Code   int    // AADSTS number
	OAuth  string // the error member, such as invalid_client
	Status int    // HTTP status
	Text   string // for the client, after "AADSTS<code>: "; never a secret

	RetryAfter time.Duration // when it may be tried again; zero if that is no matter of time

	// For the operator only.
	Quiet    bool                // happens again and again without anybody's deciding anything: no audit line
	Detail   string              // what exactly was wrong; may be empty
	Mismatch *directory.Mismatch // why no federated credential matched; may be nil
	Err      error               // cause; may be nil

	// note is called when the refusal has been written down, to remember that;
	// may be nil. In the other order a line that could not be written would be
	// remembered, and missing for ever.
	note func() error
}

// Error joins everything, for the log.
func (e *Error) Error() string {
	s := fmt.Sprintf("AADSTS%d: %s", e.Code, e.Text)
	if e.Detail != "" {
		s += " [" + e.Detail + "]"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// because adds what only the operator is told.
func (e *Error) because(format string, args ...any) *Error {
	e.Detail = fmt.Sprintf(format, args...)
	return e
}

// The values of the error member.
const (
	invalidRequest     = "invalid_request"
	invalidClient      = "invalid_client"
	invalidScope       = "invalid_scope"
	invalidResource    = "invalid_resource"
	invalidTenant      = "invalid_tenant"
	invalidInstance    = "invalid_instance"
	invalidGrant       = "invalid_grant"
	unauthorizedClient = "unauthorized_client"
	unsupportedGrant   = "unsupported_grant_type"
	unsupportedType    = "unsupported_response_type"
	serverError        = "server_error"
	temporarily        = "temporarily_unavailable"
)

func refuse(status, code int, oauth, format string, args ...any) *Error {
	return &Error{Code: code, OAuth: oauth, Status: status, Text: fmt.Sprintf(format, args...)}
}

func badRequest(code int, oauth, format string, args ...any) *Error {
	return refuse(http.StatusBadRequest, code, oauth, format, args...)
}

func badClient(code int, format string, args ...any) *Error {
	return refuse(http.StatusUnauthorized, code, invalidClient, format, args...)
}

// learnMore ends the messages about federated credentials, as in Entra.
const learnMore = "Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"

// The refusals, in the order in which a request can meet them. The beginnings
// of the texts are Entra's: people search for them.

func errTenantMalformed(tenant string) *Error {
	return badRequest(900023, invalidRequest, "Specified tenant identifier '%s' is neither a valid DNS name, nor a valid external domain.", echo(tenant))
}

func errTenantUnknown(tenant string) *Error {
	return badRequest(90002, invalidRequest, "Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.", echo(tenant))
}

func errNoTenant() *Error {
	return badRequest(50059, invalidRequest, "No tenant-identifying information found in either the request or implied by any provided credentials.")
}

func errMalformed(format string, args ...any) *Error {
	return badRequest(9002313, invalidRequest, "Invalid request. Request is malformed or invalid. "+format, args...)
}

func errDuplicate(name string) *Error {
	return badRequest(9000411, invalidRequest, "The request is not properly formatted. The parameter '%s' is duplicated.", echo(name))
}

func errMissing(name string) *Error {
	return badRequest(900144, invalidRequest, "The request body must contain the following parameter: '%s'.", name)
}

func errClientUnknown(clientID string, t *directory.Tenant) *Error {
	return badRequest(700016, unauthorizedClient, "Application with identifier '%s' was not found in the directory '%s'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.", echo(clientID), tenantName(t))
}

func errClientDisabled(c *directory.Client) *Error {
	return badRequest(7000112, unauthorizedClient, "Application '%s'(%s) is disabled.", c.AppID, echo(c.DisplayName))
}

func errNoServicePrincipal(c *directory.Client) *Error {
	return badRequest(7000229, unauthorizedClient, "The client application %s is missing service principal in the tenant %s.", c.AppID, c.TenantID)
}

func errGrantUnsupported(grant string) *Error {
	return badRequest(70003, unsupportedGrant, "The app requested an unsupported grant type '%s'.", echo(grant))
}

func errResourceOnV2() *Error {
	return badRequest(901002, invalidRequest, "The 'resource' request parameter is not supported.")
}

func errNoCredential() *Error {
	return badClient(7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
}

func errPublicClient() *Error {
	return badClient(700025, "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.")
}

func errWrongSecret(c *directory.Client) *Error {
	return badClient(7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'.", c.AppID)
}

func errSecretExpired(c *directory.Client) *Error {
	return badClient(7000222, "The provided client secret keys for app '%s' are expired.", c.AppID)
}

func errAssertionMalformed(cause error) *Error {
	e := badRequest(50027, invalidRequest, "JWT token is invalid or malformed.")
	e.Err = cause
	return e
}

func errOwnToken() *Error {
	return badClient(700222, "AAD-issued tokens may not be used for federated identity flows.")
}

func errAssertionClient() *Error {
	return badClient(700021, "Client assertion application identifier doesn't match 'client_id' parameter.")
}

func errAssertionAudience() *Error {
	return badClient(700023, "Client assertion audience claim does not match Realm issuer.")
}

func errAssertionTime(now, from, until time.Time) *Error {
	return badClient(700024, "Client assertion is not within its valid time range. Current time: %s, assertion valid from %s, expiry time of assertion %s.", isoTime(now), isoTime(from), isoTime(until))
}

func errSignature(reason, key string) *Error {
	return badClient(700027, "Client assertion failed signature validation. [Reason - %s, Thumbprint of key used by client: '%s']", reason, echo(key))
}

func errForeignKey(kid, issuer string) *Error {
	return badClient(7000272, "The certificate with identifier '%s' used to sign the federated credential could not be found in the metadata of identity provider '%s'.", echo(kid), echo(issuer))
}

func errForeignUnreachable() *Error {
	return badRequest(90061, invalidRequest, "Request to External OIDC endpoint failed.")
}

func errForeignUnparsable() *Error {
	return badRequest(900612, invalidRequest, "The metadata or keys of the External OIDC endpoint could not be parsed.")
}

// errMismatch is the refusal of a federated assertion that no credential of
// the client matches.
func errMismatch(c *directory.Client, m *directory.Mismatch) *Error {
	var e *Error
	switch {
	case m.Field == directory.FieldIssuer:
		e = badClient(700211, "No matching federated identity record found for presented assertion issuer '%s'. Please note that the issuer must match exactly, including a closing slash. %s", echo(m.Found), learnMore)
	case m.Field == directory.FieldSubject && m.Hint == directory.HintCase:
		e = badClient(7002138, "No matching federated identity record found for presented assertion subject '%s'. The subject matches with case-insensitive comparison, but not with case-sensitive comparison. %s", echo(m.Found), learnMore)
	case m.Field == directory.FieldSubject:
		e = badClient(700213, "No matching federated identity record found for presented assertion subject '%s'. %s", echo(m.Found), learnMore)
	case m.Field == directory.FieldAudience:
		e = badClient(700212, "No matching federated identity record found for presented assertion audience '%s'. %s", echo(m.Found), learnMore)
	default:
		return badClient(70025, "The client '%s'(%s) has no configured federated identity credentials.", c.AppID, echo(c.DisplayName))
	}
	e.Mismatch = m
	e.because("%s: credential %q expects %q, the assertion has %q", m.Field, m.Nearest.Name, m.Expected, echo(m.Found))
	if m.Hint != "" {
		e.Detail += ": " + m.Hint
	}
	return e
}

func errScopeMalformed(scope string) *Error {
	return badRequest(70011, invalidScope, "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope %s is not valid.", echo(scope))
}

func errScopeNotDefault(scope string) *Error {
	return badRequest(1002012, invalidScope, "The provided value for scope %s is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).", echo(scope))
}

func errResourceUnknown(name string, t *directory.Tenant) *Error {
	return badRequest(500011, invalidResource, "The resource principal named %s was not found in the tenant named %s. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant.", echo(name), tenantName(t))
}

func errResourceDisabled(name string) *Error {
	return badRequest(500014, invalidResource, "The service principal for resource '%s' is disabled.", echo(name))
}

func errUnknownInstance(host string) *Error {
	return badRequest(50049, invalidInstance, "Unknown or invalid instance '%s'.", echo(host))
}

func tenantName(t *directory.Tenant) string {
	if t.DisplayName != "" {
		return echo(t.DisplayName)
	}
	return t.ID
}

// isoTime writes a time as Entra's messages about assertions do.
func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }

// maxEcho is how much of a presented value an answer, a log record or an
// audit line repeats, in bytes: enough for the longest credential.
const maxEcho = 600

// echo makes a presented value fit to be repeated.
func echo(s string) string { return text.Clip(s, maxEcho) }
