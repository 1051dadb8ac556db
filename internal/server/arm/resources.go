package arm

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
)

func (h *Handler) registerResources() {
	h.Register(ResourceType{Name: "/subscriptions/resources", Versions: versionsResources, Routes: []Route{{
		Method: "GET", Collection: true, Visible: true, Handle: h.listResources,
		Action: "Microsoft.Resources/subscriptions/resources/read",
	}}})
	h.Register(ResourceType{Name: "/subscriptions/resourceGroups/resources", Versions: versionsResources, Routes: []Route{{
		Method: "GET", Collection: true, Visible: true, Handle: h.listResources,
		Action: "Microsoft.Resources/subscriptions/resourceGroups/resources/read",
	}}})
}

// resources lists everything below a subscription or group that a group can
// hold, of all types, in order of id.
func (h *Handler) resources(ctx context.Context, scope ID) ([]Resource, error) {
	var all []Resource
	for _, rt := range h.reg.types {
		if rt.List == nil {
			continue
		}
		some, err := rt.List(ctx, scope)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	sortByKey(all, func(r *Resource) string { return strings.ToLower(r.ID) })
	return all, nil
}

// resourceFilter is what Azure documents for this listing, without what no
// resource here has (plan, identity).
var resourceFilter = filterRules{
	properties: map[string]string{
		"resourcetype": "eq ne", "name": "eq ne", "location": "eq ne", "resourcegroup": "eq ne",
		"tagname": "eq", "tagvalue": "eq",
	},
	functions: map[string][]string{"substringof": {"text,name", "text,resourcegroup"}, "startswith": {"tagname,text"}},
}

type wireResource struct {
	ID                string            `json:"id"`
	Name              string            `json:"name"`
	Type              string            `json:"type"`
	Location          string            `json:"location"`
	Tags              map[string]string `json:"tags,omitempty"`
	CreatedTime       *time.Time        `json:"createdTime,omitempty"`
	ChangedTime       *time.Time        `json:"changedTime,omitempty"`
	ProvisioningState string            `json:"provisioningState,omitempty"`
}

// listResources answers the generic listing of a subscription or group. Each
// item is shown to those who may read it.
func (h *Handler) listResources(w http.ResponseWriter, r *http.Request, q *Request) error {
	f, err := q.filter(&resourceFilter)
	if err != nil {
		return err
	}
	expand, err := q.expand("createdTime", "changedTime", "provisioningState")
	if err != nil {
		return err
	}
	all, err := h.resources(r.Context(), q.ID.Parent())
	if err != nil {
		return err
	}
	shown := all[:0]
	for _, res := range all {
		env := filterEnv{tags: res.Tags, property: res.property}
		if !match(f, &env) {
			continue
		}
		ok, err := q.Allowed(r.Context(), res.Read, res.ID)
		if err != nil {
			return err
		}
		if ok {
			shown = append(shown, res)
		}
	}
	return writePage(w, q, shown, func(res *Resource) string { return strings.ToLower(res.ID) }, func(res *Resource) wireResource {
		out := wireResource{ID: res.ID, Name: res.Name, Type: res.Type, Location: res.Location, Tags: res.Tags}
		if expand["createdTime"] {
			out.CreatedTime = &res.Created
		}
		if expand["changedTime"] {
			out.ChangedTime = &res.Updated
		}
		if expand["provisioningState"] {
			out.ProvisioningState = "Succeeded"
		}
		return out
	})
}

// property is a resource as a filter sees it.
func (res *Resource) property(name string) string {
	switch name {
	case "resourcetype":
		return res.Type
	case "location":
		return res.Location
	case "resourcegroup":
		id, _ := ParseID(res.ID)
		return id.Group()
	}
	return res.Name
}

// expand reads $expand; what is not known is refused.
func (q *Request) expand(known ...string) (map[string]bool, error) {
	s, err := parameter(q.Query, "$expand")
	if err != nil || s == "" {
		return nil, err
	}
	out := map[string]bool{}
	for name := range strings.SplitSeq(s, ",") {
		found := false
		for _, k := range known {
			if strings.EqualFold(strings.TrimSpace(name), k) {
				out[k], found = true, true
			}
		}
		if !found {
			return nil, fault.BadRequest("InvalidExpandInQueryString", "The $expand value '%s' is not supported; supported are '%s'.", clip(name), strings.Join(known, "', '"))
		}
	}
	return out, nil
}
