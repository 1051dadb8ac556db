package keyvault

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web"
)

// Handler is the data plane. All fields but Version must be set.
type Handler struct {
	Vaults *Vaults
	RBAC   *rbac.RBAC
	// Authenticate accepts tokens whose audience is the vaults'. The handler
	// itself demands that they are of the vault's tenant.
	Authenticate web.Authenticator
	// Audit gets the refusals that come before RBAC is asked: tokens that are
	// not accepted, and network rules.
	Audit *audit.Log
	// Version is shown in the header x-ms-keyvault-service-version; "podkey" if
	// empty.
	Version string
}

// Plane returns the data plane for the edge.
func (h *Handler) Plane() *web.Plane {
	return &web.Plane{Name: "vault", Serve: h.serve, Fail: h.fail}
}

// request is one request on its way through the pipeline.
type request struct {
	w     http.ResponseWriter
	r     *http.Request
	call  *web.Call
	vault Vault
	who   audit.Principal
	target

	api   string     // api-version
	query url.Values // the other parameters; nil if there are none
}

// serve is the pipeline. Its order is the service's: vault, token, network
// rules, path, authorisation, parameters, and only then the operation, which
// looks at the object. So whoever may not ask learns nothing about objects,
// and an SDK's first request, which has no token and no body, gets its
// challenge whatever it asks for.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	call := web.CallOf(r.Context())
	rq := request{w: w, r: r, call: call}
	setHeaders(w.Header(), call, r, h.Version)
	var ok bool
	var err error
	if rq.vault, ok, err = h.Vaults.Get(r.Context(), call.Vault); err != nil {
		return err
	}
	if !ok {
		return vaultNotFound(call.Vault)
	}
	w.Header()["X-Ms-Keyvault-Region"] = []string{rq.vault.Location}
	rq.target = find(methodOf(r), r.URL.EscapedPath())
	if err := h.authenticate(&rq); err != nil {
		return err
	}
	if err := h.admit(&rq); err != nil {
		return err
	}
	if rq.err != nil {
		return rq.err
	}
	call.NotePattern(rq.route.pattern)
	if err := h.authorise(&rq); err != nil {
		return err
	}
	if err := rq.parameters(); err != nil {
		return err
	}
	return rq.route.handle(h, &rq)
}

// authenticate finds out who calls. A token of another tenant than the
// vault's is not acceptable, however valid it is there.
func (h *Handler) authenticate(rq *request) (err error) {
	rq.who, err = web.Authenticate(rq.r, h.Authenticate)
	if err == nil && !strings.EqualFold(rq.who.TenantID, rq.vault.TenantID) {
		n := rq.call.Names
		err = &web.AuthError{
			Reason:   web.AuthIssuer,
			Expected: n.IssuerV1(rq.vault.TenantID) + ", " + n.IssuerV2(rq.vault.TenantID),
			Found:    rq.who.Issuer,
		}
	}
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*web.AuthError](err)
	if !ok {
		return err
	}
	if refused.Reason != web.AuthMissing { // every SDK begins without a token: that is no event
		if err := h.refuse(rq, "Authentication", refused.Error()); err != nil {
			return err
		}
	}
	return &unauthorised{tenant: rq.vault.TenantID, err: refused}
}

// admit applies the vault's network rules.
func (h *Handler) admit(rq *request) error {
	vault := &rq.vault
	var inner, text string
	switch {
	case vault.PublicNetworkAccess == accessDisabled:
		inner = "ForbiddenByConnection"
		text = "Public network access is disabled and request is not from a trusted service nor via an approved private link.\r\n"
	case vault.NetworkACLs != nil && vault.NetworkACLs.DefaultAction == actionDeny && !vault.NetworkACLs.admit(rq.call.RemoteAddr):
		inner = "ForbiddenByFirewall"
		text = "Client address is not authorized and caller is not a trusted service.\r\nClient address: " + rq.call.RemoteAddr + "\r\n"
	default:
		return nil
	}
	operation := "Unknown"
	if rq.route != nil {
		operation = rq.route.operation
	}
	if err := h.refuse(rq, operation, "the vault's network rules: "+inner); err != nil {
		return err
	}
	return &fault.Error{
		Kind: fault.Forbidden, Code: codeForbidden, Inner: inner,
		Message: text + "Caller: " + caller(&rq.who) + "\r\nVault: " + vault.label(),
	}
}

// admit reports whether an address is in one of the ranges.
func (n *NetworkACLs) admit(address string) bool {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	a = a.Unmap().WithZone("")
	for _, r := range n.IPRules {
		if p, ok := r.prefix(); ok && p.Contains(a) {
			return true
		}
	}
	return false
}

// refuse writes the audit line of a refusal that rbac is not asked about.
func (h *Handler) refuse(rq *request, operation, reason string) error {
	err := h.Audit.Write(rq.r.Context(), audit.Record{
		Plane:     "vault",
		Operation: operation,
		Object:    rq.object(),
		Principal: rq.who,
		Decision:  audit.Deny,
		Reason:    reason,
	})
	if err != nil {
		return fmt.Errorf("write down a refusal: %w", err)
	}
	return nil
}

// object is the ARM id that the request is about, in lower case: the secret
// if the path names one, else the vault. Text that is not a name never gets
// into an id, so that it cannot choose what is authorised.
func (rq *request) object() string {
	const collection = "/secrets/"
	var b strings.Builder
	b.Grow(len(rq.vault.ID) + len(collection) + len(rq.name))
	writeLower(&b, rq.vault.ID)
	if validName(rq.name) {
		b.WriteString(collection)
		writeLower(&b, rq.name)
	}
	return b.String()
}

// writeLower appends ASCII text in lower case.
func writeLower(b *strings.Builder, s string) {
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		b.WriteByte(c)
	}
}

// authorise asks rbac, which also writes the audit line.
func (h *Handler) authorise(rq *request) error {
	vault := &rq.vault
	grant, err := h.RBAC.Authorize(rq.r.Context(), rbac.Request{
		Principal:        rq.who,
		Plane:            "vault",
		Operation:        rq.route.operation,
		Action:           rq.route.action,
		Data:             true,
		Object:           rq.object(),
		TenantID:         vault.TenantID,
		UsePolicies:      !vault.EnableRBAC,
		Policies:         vault.AccessPolicies,
		PolicyKind:       "secrets",
		PolicyPermission: rq.route.permission,
	})
	if err != nil {
		return denied(err, vault)
	}
	if vault.EnableRBAC {
		header := rq.w.Header()
		header["X-Ms-Keyvault-Rbac-Assignment-Id"] = []string{grant.AssignmentID}
		header["X-Ms-Keyvault-Rbac-Cache"] = headerRBACCache
	}
	return nil
}

// apiVersions are the versions that clients may ask for, with whether they
// have what 2025-07-01 added. Behaviour does not depend on them otherwise.
var apiVersions = map[string]bool{
	"2015-06-01": false, "2016-10-01": false,
	"7.0": false, "7.1": false, "7.2": false, "7.3": false, "7.4": false, "7.5": false, "7.6": false,
	"7.3-preview": false, "7.4-preview.1": false, "7.5-preview.1": false, "7.6-preview.1": false, "7.6-preview.2": false,
	"2025-06-01-preview": false, "2025-07-01": true,
	"2026-01-01-preview": true, "2026-03-01-preview": true, "2026-04-01": true,
	"2026-05-01-preview": true, "2026-07-01-preview": true,
}

// parameters checks what every operation has: the version of the API, and a
// name that can be one.
func (rq *request) parameters() error {
	const only = "api-version="
	raw := rq.r.URL.RawQuery
	if v, ok := strings.CutPrefix(raw, only); ok && !strings.ContainsAny(v, "&;%+") {
		rq.api = v // the usual query has nothing else
	} else {
		q, err := url.ParseQuery(raw)
		if err != nil {
			return badParameter("The query string is malformed.")
		}
		for name, values := range q {
			if len(values) > 1 {
				return badParameter("The query parameter '%.40s' must not be repeated.", name)
			}
		}
		rq.api, rq.query = q.Get("api-version"), q
	}
	if rq.api == "" {
		return badParameter("The query parameter 'api-version' is required.")
	}
	if _, ok := apiVersions[rq.api]; !ok {
		return badParameter("The api-version '%.40s' is not supported.", strings.ToValidUTF8(rq.api, "?"))
	}
	if strings.Contains(rq.route.pattern, "{name}") && !validName(rq.name) {
		return badName()
	}
	return nil
}

// Headers that are the same on every answer.
var (
	headerNoCache    = []string{"no-cache"}
	headerExpired    = []string{"-1"}
	headerNosniff    = []string{"nosniff"}
	headerStrict     = []string{"max-age=31536000;includeSubDomains"}
	headerRBACCache  = []string{"ra_age=0;da_age=0;rd_age=0;brd_age=0;ra_notif_age=0;dec_lev=1;"}
	headerOwnVersion = []string{"podkey"}
)

// setHeaders sets the headers of every answer, refusals included. The keys
// are in canonical form.
func setHeaders(header http.Header, call *web.Call, r *http.Request, version string) {
	header["Cache-Control"] = headerNoCache
	header["Pragma"] = headerNoCache
	header["Expires"] = headerExpired
	header["X-Content-Type-Options"] = headerNosniff
	header["Strict-Transport-Security"] = headerStrict
	values := [...]string{call.ID, networkInfo(call.RemoteAddr), call.CorrelationID, version}
	header["X-Ms-Request-Id"] = values[0:1:1]
	header["X-Ms-Keyvault-Network-Info"] = values[1:2:2]
	if len(r.Header["X-Ms-Client-Request-Id"]) > 0 && call.CorrelationID != call.ID {
		header["X-Ms-Client-Request-Id"] = values[2:3:3]
	}
	header["X-Ms-Keyvault-Service-Version"] = headerOwnVersion
	if version != "" {
		header["X-Ms-Keyvault-Service-Version"] = values[3:4:4]
	}
}

func networkInfo(address string) string {
	if strings.IndexByte(address, ':') >= 0 {
		return "conn_type=Ipv6;addr=" + address + ";act_addr_fam=InterNetworkV6;"
	}
	return "conn_type=Ipv4;addr=" + address + ";act_addr_fam=InterNetwork;"
}
