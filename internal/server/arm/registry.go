package arm

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
)

// ResourceType is one type of resource and everything that is known of it.
// The plane's own types are registered like those of other packages, through
// [Handler.Register], so that one pipeline serves all.
type ResourceType struct {
	// Name is the full type in display case, as [ID.Type] builds it, such as
	// Microsoft.KeyVault/vaults or Podkey.Admin/rotateKeys.
	Name string

	// Versions are the api-versions that are accepted, oldest first. If
	// empty, those of the provider's other types are.
	Versions []string

	// Find tells whether an item exists and what its id is in display case.
	// tenantID is of the caller, and of the subscription if there is one. Find
	// serves HEAD, and decides whether things can be put below or on the item.
	// A type without it has no HEAD, and nothing lies below its items unless
	// Loose is set.
	Find func(ctx context.Context, tenantID string, id ID) (display string, found bool, err error)

	// Loose items may carry role assignments whether or not they exist
	// themselves, as long as their parent does. So it is for a vault's
	// secrets: a grant may come before the secret, and who may give it need
	// not learn which secrets the vault has.
	Loose bool

	// Leaf items are no scope: nothing extends them, no role is assigned on
	// them alone.
	Leaf bool

	// List gives the items below a subscription or group, for the generic
	// listing of resources and for what a group holds. Only for types that
	// Azure tracks as resources of a group.
	List func(ctx context.Context, scope ID) ([]Resource, error)

	// Delete removes an item as a part of its group's removal, with all that
	// must go with it; by is the object id of who removes the group. It must do
	// no harm when repeated. Needed with List.
	Delete func(ctx context.Context, id ID, by string) error

	// Hidden types are not in the listing of a provider's types.
	Hidden bool

	Routes []Route
}

// Route is one verb on items or on the collection of a type.
type Route struct {
	Method string
	// Collection routes are for ids that end in the type, without a name: the
	// collection itself, or an action such as .../checkNameAvailability.
	Collection bool
	// Levels are where the id's last chain may lie: what a role is worth depends
	// on it. 0 is the tenant root alone, so that an operation on the whole
	// server that forgets to say so is not open to every owner of a group.
	// Types of the first chain have no choice.
	Levels Level
	// Action is the operation that the caller must be allowed to perform on
	// the id. Empty means that any authenticated principal may call, and the
	// handler shows only what the caller may see.
	Action string
	// Visible routes are also open to a caller who holds a role anywhere
	// below: a listing, or the record of a subscription. The handler then
	// shows only what [Request.Allowed] allows.
	Visible bool
	// Role is for actions on a role assignment: it tells the GUID of the role
	// that the assignment gives, which the decision may depend on. It is asked
	// before the caller is authorised, and must not give anything away.
	Role func(r *http.Request, q *Request) (roleID string, err error)
	// TenantID is the tenant that owns what a route at the tenant level acts
	// on: principals of other tenants are refused. Empty means the caller's
	// own tenant.
	TenantID string
	Handle   func(w http.ResponseWriter, r *http.Request, q *Request) error
}

// Resource is a resource as the generic listing shows it.
type Resource struct {
	ID, Name, Type, Location string
	Tags                     map[string]string
	Created, Updated         time.Time
	Read                     string // action that allows to see it
}

// registered is a type with its routes by verb and form.
type registered struct {
	ResourceType
	routes map[routeKey]*Route
}

type routeKey struct {
	method     string
	collection bool
}

// registry holds the types by their lower-case names.
type registry struct {
	types      map[string]*registered
	namespaces map[string]*namespace
}

// namespace is one resource provider.
type namespace struct {
	name     string // display case
	versions []string
	types    []*registered // in order of registration
}

// Register adds a type. It panics on one that is taken or contradicts itself:
// a mistake in our own program. Call it before the plane serves. With the
// first type of a provider comes the provider's register action.
func (h *Handler) Register(t ResourceType) {
	ns, _, _ := strings.Cut(t.Name, "/")
	known := h.reg.namespaces[strings.ToLower(ns)] != nil
	h.reg.add(t)
	if !known && ns != "" && !t.Hidden {
		h.registerRegister(ns)
	}
}

func (g *registry) add(t ResourceType) {
	key := strings.ToLower(t.Name)
	if g.types[key] != nil || (t.List == nil) != (t.Delete == nil) || strings.Count(t.Name, "/") == 0 {
		panic("arm: bad resource type " + t.Name)
	}
	rt := &registered{ResourceType: t, routes: map[routeKey]*Route{}}
	for i := range t.Routes {
		r := &t.Routes[i]
		k := routeKey{r.Method, r.Collection}
		if rt.routes[k] != nil || r.Handle == nil || r.Method == http.MethodHead || r.Visible && r.Action == "" {
			panic("arm: bad route " + r.Method + " " + t.Name)
		}
		rt.routes[k] = r
	}
	g.types[key] = rt
	nsName, _, _ := strings.Cut(t.Name, "/")
	ns := g.namespaces[strings.ToLower(nsName)]
	if ns == nil {
		ns = &namespace{name: nsName}
		g.namespaces[strings.ToLower(nsName)] = ns
	}
	if len(ns.versions) == 0 && !t.Hidden {
		ns.versions = t.Versions
	}
	if len(rt.Versions) == 0 {
		rt.Versions = ns.versions
	}
	if len(rt.Versions) == 0 {
		panic("arm: no api-version for " + t.Name)
	}
	ns.types = append(ns.types, rt)
}

// find returns the type of what id names, or nil.
func (g *registry) find(id ID) *registered { return g.types[strings.ToLower(id.Type())] }

// lookup finds the route for a request. allow is set for a known path with
// another verb: the verbs that it has.
func (g *registry) lookup(method string, id ID, version string) (rt *registered, route *Route, allow string, err error) {
	rt = g.find(id)
	if rt == nil {
		return nil, nil, "", g.unknown(id, version)
	}
	if !slices.Contains(rt.Versions, version) {
		return nil, nil, "", wrongVersion(id, rt.Versions, version)
	}
	want := method
	if method == http.MethodHead && id.Item() && rt.Find != nil {
		want = http.MethodGet
	}
	route = rt.routes[routeKey{want, !id.Item()}]
	if route == nil {
		allow = rt.allow(id)
		if allow == "" {
			return nil, nil, "", g.unknown(id, version)
		}
		return nil, nil, allow, fault.New(fault.BadMethod, "MethodNotAllowed", "The requested resource does not support http method '%s'.", clip(method))
	}
	levels := route.Levels
	if levels == 0 {
		levels = AtTenant
	}
	if id.namespace() != "" && len(id.last().types) > 0 && levels&id.Level() == 0 {
		return nil, nil, "", fault.NotFound("InvalidResourceType", "The resource type '%s' cannot be addressed at the scope '%s'.", clip(rt.Name), clip(id.Scope().String()))
	}
	return rt, route, "", nil
}

// pattern names a route in the log, as a mux's pattern would.
func (rt *registered) pattern(r *Route) string {
	p := r.Method + " " + rt.Name
	if !r.Collection {
		p += "/{name}"
	}
	return p
}

// allow lists the verbs that id's form has.
func (rt *registered) allow(id ID) string {
	var verbs []string
	for k := range rt.routes {
		if k.collection != id.Item() {
			verbs = append(verbs, k.method)
		}
	}
	slices.Sort(verbs)
	return strings.Join(verbs, ", ")
}

// unknown says that there is no such type, in ARM's words.
func (g *registry) unknown(id ID, version string) error {
	ns := id.namespace()
	if ns == "" || id.Item() && len(id.last().types) == 0 {
		return fault.NotFound("NotFound", "No resource matches the path '%s'.", clip(id.String()))
	}
	if g.namespaces[strings.ToLower(ns)] == nil {
		return fault.NotFound("InvalidResourceNamespace", "The resource namespace '%s' is invalid.", clip(ns))
	}
	return fault.NotFound("InvalidResourceType", "The resource type '%s' could not be found in the namespace '%s' for api version '%s'.",
		clip(strings.Join(id.last().types, "/")), clip(ns), clip(version))
}
