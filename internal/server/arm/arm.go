// Package arm is the management API: the plane "management", which speaks
// the protocol of Azure Resource Manager.
//
// It owns resource ids ([ID]), the registry of resource types ([Handler.Register]),
// subscriptions and resource groups, and the order in which every request is
// judged (pipeline.go): the path, the api-version, who calls, whether they
// may, whether what the path goes through exists, and only then the handler.
// So an answer never depends on anything that the caller may not read.
// Identities, vaults and role assignments are kept by the packages directory,
// keyvault and rbac; this one gives them their management face.
//
// It guarantees that a listing holds only what its caller may read, that
// every refusal has the body {"error":{"code","message"}}, and that removing
// a resource group, interrupted anywhere, is completed by repeating it (see
// [Handler.removeGroup]).
//
// Operations finish before they answer: no answer asks the client to poll.
package arm

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/web"
)

// Options are what the plane works with. All but Now and Log must be set.
type Options struct {
	Directory    *directory.Directory
	RBAC         *rbac.RBAC
	Vaults       *keyvault.Vaults
	Audit        *audit.Log        // the log that RBAC writes to
	Authenticate web.Authenticator // for tokens whose audience is the management API
	Now          func() time.Time  // clock; time.Now if nil
	Log          *slog.Logger      // for work that no request waits for; slog.DiscardHandler if nil
}

// Handler is the plane. Create with [New]; its methods are safe for
// concurrent use once it serves.
type Handler struct {
	o   Options
	s   *store.Store
	reg registry

	subscriptions *store.Table[Subscription]
	groups        *store.Table[group]
}

// New declares the tables subscription and resourcegroup and registers the
// plane's own types. Call it before Store.Load.
func New(s *store.Store, o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{o: o, s: s, reg: registry{types: map[string]*registered{}, namespaces: map[string]*namespace{}}}
	h.subscriptions = store.NewTable(s, "subscription", store.TableOptions[Subscription]{
		Mode:    store.Plain,
		Indexes: map[string]func(*Subscription) []string{"tenant": func(s *Subscription) []string { return []string{s.TenantID} }},
	})
	h.groups = store.NewTable(s, "resourcegroup", store.TableOptions[group]{Mode: store.Plain})
	h.registerSubscriptions()
	h.registerProviders()
	h.registerGroups()
	h.registerResources()
	h.registerTags()
	h.registerIdentities()
	h.registerVaults()
	h.registerDeletedVaults()
	h.registerAuthorization()
	return h
}

// Plane returns the plane, for the edge.
func (h *Handler) Plane() *web.Plane {
	return &web.Plane{Name: "management", Serve: h.serve, Fail: fail, MaxBody: maxBody}
}

// setHeaders sets what every answer of the plane carries.
func setHeaders(w http.ResponseWriter, r *http.Request) {
	c, out := web.CallOf(r.Context()), w.Header()
	out["X-Ms-Request-Id"] = []string{c.ID}
	out["X-Ms-Correlation-Request-Id"] = []string{c.CorrelationID}
	out["Cache-Control"] = []string{"no-cache"}
	out["Pragma"] = []string{"no-cache"}
	out["Expires"] = []string{"-1"}
	out["Strict-Transport-Security"] = []string{"max-age=31536000; includeSubDomains"}
	out["X-Content-Type-Options"] = []string{"nosniff"}
	// The client's own id goes back only if it asks, and only as the GUID that
	// the edge read from it: other text is not repeated.
	if r.Header.Get("X-Ms-Return-Client-Request-Id") == "true" && r.Header.Get("X-Ms-Client-Request-Id") != "" && c.CorrelationID != c.ID {
		out["X-Ms-Client-Request-Id"] = []string{c.CorrelationID}
	}
}
