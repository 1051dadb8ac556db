package arm

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/web"
)

// registerProviders serves what there is to know of resource providers. All
// of them are registered in every subscription, and stay so.
func (h *Handler) registerProviders() {
	find := func(_ context.Context, _ string, id ID) (string, bool, error) {
		ns := h.provider(id.Name())
		if ns == nil {
			return "", false, nil
		}
		return strings.TrimSuffix(id.Scope().String(), "/") + "/providers/" + ns.display(), true, nil
	}
	h.Register(ResourceType{
		Name: "/subscriptions/providers", Versions: versionsResources, Find: find,
		Routes: []Route{
			{Method: "GET", Collection: true, Action: "Microsoft.Resources/subscriptions/providers/read", Visible: true, Handle: h.listProviders},
			{Method: "GET", Action: "Microsoft.Resources/subscriptions/providers/read", Visible: true, Handle: h.getProvider},
		},
	})
	// Without a subscription the answer says nothing about anybody.
	h.Register(ResourceType{
		Name: "/providers", Versions: versionsResources, Find: find,
		Routes: []Route{
			{Method: "GET", Collection: true, Handle: h.listProviders},
			{Method: "GET", Handle: h.getProvider},
		},
	})
	h.registerRegister("Microsoft.Resources")
}

// registerRegister adds the action by which clients register a provider in a
// subscription.
func (h *Handler) registerRegister(namespace string) {
	h.reg.add(ResourceType{
		Name: namespace + "/register", Versions: versionsResources, Hidden: true,
		Routes: []Route{{
			Method: "POST", Collection: true, Levels: AtSubscription, Action: namespace + "/register/action", Handle: h.getProvider,
		}},
	})
}

type wireProvider struct {
	ID                string             `json:"id"`
	Namespace         string             `json:"namespace"`
	RegistrationState string             `json:"registrationState"`
	RegistrationPlan  string             `json:"registrationPolicy"`
	ResourceTypes     []wireProviderType `json:"resourceTypes"`
}

type wireProviderType struct {
	ResourceType string   `json:"resourceType"`
	Locations    []string `json:"locations"`
	APIVersions  []string `json:"apiVersions"`
	Capabilities string   `json:"capabilities"`
}

// provider finds a provider by its namespace, in any case.
func (h *Handler) provider(name string) *namespace {
	key := strings.ToLower(name)
	ns := h.reg.namespaces[key]
	if key != "microsoft.resources" {
		return ns
	}
	// The types of the first chain are its types, too.
	all := *h.reg.namespaces[""]
	all.types = slices.Concat(all.types, ns.types)
	return &all
}

func (ns *namespace) display() string {
	if ns.name == "" {
		return "Microsoft.Resources"
	}
	return ns.name
}

func (ns *namespace) wire(scope ID) wireProvider {
	out := wireProvider{
		ID:        strings.TrimSuffix(scope.String(), "/") + "/providers/" + ns.display(),
		Namespace: ns.display(), RegistrationState: "Registered", RegistrationPlan: "RegistrationRequired",
		ResourceTypes: []wireProviderType{},
	}
	if ns.name == "" {
		out.RegistrationPlan = "RegistrationFree"
	}
	for _, rt := range ns.types {
		if rt.Hidden {
			continue
		}
		_, name, _ := strings.Cut(rt.Name, "/")
		t := wireProviderType{ResourceType: name, Locations: []string{}, APIVersions: slices.Clone(rt.Versions), Capabilities: "None"}
		slices.Reverse(t.APIVersions) // newest first: clients take the first
		if rt.List != nil || rt.Name == typeGroup {
			t.Capabilities = "SupportsTags, SupportsLocation"
			for _, l := range &locations {
				t.Locations = append(t.Locations, l[1])
			}
		}
		out.ResourceTypes = append(out.ResourceTypes, t)
	}
	return out
}

func (h *Handler) listProviders(w http.ResponseWriter, _ *http.Request, q *Request) error {
	var all []*namespace
	for key, ns := range h.reg.namespaces {
		if key != "" && (key == "microsoft.resources" || slices.ContainsFunc(ns.types, func(rt *registered) bool { return !rt.Hidden })) {
			all = append(all, h.provider(key))
		}
	}
	return writePage(w, q, all, func(ns **namespace) string { return strings.ToLower((*ns).display()) },
		func(ns **namespace) wireProvider { return (*ns).wire(q.ID.Parent()) })
}

// getProvider answers for .../providers/{namespace} and for its register
// action, which has nothing left to do.
func (h *Handler) getProvider(w http.ResponseWriter, _ *http.Request, q *Request) error {
	name := q.ID.namespace()
	ns := h.provider(name)
	if ns == nil {
		return fault.NotFound("InvalidResourceNamespace", "The resource namespace '%s' is invalid.", clip(name))
	}
	return web.WriteJSON(w, http.StatusOK, ns.wire(q.ID.Scope()))
}
