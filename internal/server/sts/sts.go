// Package sts is the token service: the login plane, compatible with
// Microsoft Entra ID.
//
// It serves the discovery documents and keys of tenants, answers instance
// discovery, exchanges a client's credential (federated assertion, secret or
// certificate) for an access token, and lets people sign in: by password, in
// a browser, with a device code, or at an outside identity provider. It
// guarantees that
//
//   - a token is issued only to a client that has proved itself with a
//     credential stored in the directory, or for a person who has, and only
//     after the audit line is written;
//   - every refusal has Entra's error, AADSTS code and HTTP status, with
//     trace and correlation id; what exactly differed goes to the operator's
//     log and the audit line, never to the client;
//   - secrets, assertions and tokens are in neither;
//   - every URL in an answer is built from the names that the request came in
//     by, except where only our own name leads a person's browser here;
//   - a browser is redirected to no address but those that are compared whole
//     (redirect.go), and a form is read only from the browser that was shown it.
//
// A token request passes through one pipeline, in this order: tenant, client,
// parameters, authentication, resource, minting, audit. A kind of credential
// fills in only its own step (federated.go, secret.go, certificate.go for
// clients, grant.go for people) and cannot forget a shared one.
package sts

import (
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/session"
	"github.com/podkey/podkey/internal/token"
	"github.com/podkey/podkey/internal/web"
)

// Handler is the token service's needs. Fields without a remark are required.
type Handler struct {
	Directory *directory.Directory
	Sessions  *session.Sessions
	Keys      *token.Keys
	Foreign   *token.Foreign // verifies federated assertions
	Audit     *audit.Log     // one line per decision; if it cannot be written there is no token
	Log       *slog.Logger   // one record per refusal, with what differed

	Own   *web.Names // our own names
	Azure *web.Names // Azure's names, if we answer for them; else nil

	SignIn SignIn // how people can sign in; by password if zero

	Now func() time.Time // clock; time.Now if nil

	// Lifetime says how long a token lives. long is true for managed identities
	// and for clients that declare that they understand continuous access
	// evaluation, unless they act as a person. If nil: 24 hours if long, else a random time of 60 to 90
	// minutes, as in Entra. Tokens never outlive token.MaxLifetime.
	Lifetime func(long bool) time.Duration

	// ServesLogin tells, for instance discovery, whether a host (lower case,
	// with port if there is one) besides those of the names is this service's,
	// such as a bare address. May be nil.
	ServesLogin func(host string) bool
}

// service is a Handler with what is derived from it.
type service struct {
	*Handler
	resources map[string]resource // by lower-case name without closing slash
	limits    *limits
	pages     *template.Template
}

// Plane returns the login plane. The fields must not change afterwards.
func (h *Handler) Plane() *web.Plane {
	s := &service{Handler: h, resources: map[string]resource{}, limits: newLimits(), pages: parsePages()}
	s.registerResources()

	mux := new(web.Mux)
	// A tenant's endpoints are served at three places: at the root, below
	// /adfs (where the tenant goes unsaid) and below /adfs/{segment}: an
	// authority whose path begins so is used without instance discovery by
	// MSAL for Python, so by az.
	for _, at := range []string{"/{tenant}", "/adfs", "/adfs/{segment}/{tenant}"} {
		s.mount(mux, at)
	}
	mux.Handle("GET /common/discovery/instance", s.instanceDiscovery)
	mux.Handle("GET /{tenant}/userrealm/{user}", s.userRealm)
	for _, path := range []string{devicePath, devicePathEntra} {
		mux.Handle("GET "+path, s.devicePage)
		mux.Handle("POST "+path, s.devicePage)
	}
	mux.Handle("GET "+outsidePath, s.beginOutside)
	mux.Handle("GET "+outsideCallback, s.endOutside)
	mux.Handle("GET /signin/page.css", pageFile("page.css", "text/css; charset=utf-8"))
	mux.Handle("GET /signin/submit.js", pageFile("submit.js", "text/javascript; charset=utf-8"))

	return &web.Plane{
		Name: "login",
		Serve: func(w http.ResponseWriter, r *http.Request) error {
			s.stamp(w, r)
			// Entra compares paths without regard to case.
			r.URL.Path, r.URL.RawPath = strings.ToLower(r.URL.Path), strings.ToLower(r.URL.RawPath)
			return mux.Serve(w, r)
		},
		Fail: s.fail,
	}
}

func (s *service) mount(mux *web.Mux, at string) {
	mux.Handle("GET "+at+"/v2.0/.well-known/openid-configuration", s.openIDConfiguration(2))
	mux.Handle("GET "+at+"/.well-known/openid-configuration", s.openIDConfiguration(1))
	mux.Handle("GET "+at+"/discovery/v2.0/keys", s.keys(2))
	mux.Handle("GET "+at+"/discovery/keys", s.keys(1))
	mux.Handle("POST "+at+"/oauth2/v2.0/token", s.token(2))
	mux.Handle("POST "+at+"/oauth2/token", s.token(1))
	for version, oauth := range map[int]string{1: at + "/oauth2", 2: at + "/oauth2/v2.0"} {
		mux.Handle("POST "+oauth+"/devicecode", s.devicecode(version))
		for _, method := range []string{"GET ", "POST "} {
			mux.Handle(method+oauth+"/authorize", s.authorize(version))
			mux.Handle(method+oauth+"/logout", s.logout)
		}
	}
	mux.Handle(at+"/openid/userinfo", unsupportedEndpoint)
	mux.Handle(at+"/kerberos", unsupportedEndpoint)
}

func (h *Handler) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

// allNames are the sets of names whose tokens and URLs count as ours for a
// request.
func (h *Handler) allNames(call *web.Call) []*web.Names {
	ns := []*web.Names{call.Names, h.Own}
	if h.Azure != nil {
		ns = append(ns, h.Azure)
	}
	return ns
}
