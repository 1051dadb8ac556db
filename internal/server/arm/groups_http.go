package arm

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/web"
)

const actionGroup = "Microsoft.Resources/subscriptions/resourceGroups/"

func (h *Handler) registerGroups() {
	h.Register(ResourceType{
		Name: typeGroup, Versions: versionsResources,
		Find: func(ctx context.Context, _ string, id ID) (string, bool, error) {
			g, ok, err := h.group(ctx, id)
			return g.id(), ok, err
		},
		Routes: []Route{
			{Method: "GET", Collection: true, Action: actionGroup + "read", Visible: true, Handle: h.listGroups},
			{Method: "GET", Action: actionGroup + "read", Handle: h.getGroup},
			{Method: "PUT", Action: actionGroup + "write", Handle: h.putGroupHTTP},
			{Method: "PATCH", Action: actionGroup + "write", Handle: h.patchGroupHTTP},
			{Method: "DELETE", Action: actionGroup + "delete", Handle: h.deleteGroup},
		},
	})
}

// wireGroup is a resource group in answers.
type wireGroup struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	ManagedBy  string            `json:"managedBy,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Properties struct {
		ProvisioningState string `json:"provisioningState"`
	} `json:"properties"`
}

func (g *group) wire() wireGroup {
	out := wireGroup{
		ID: g.id(), Name: g.Name, Type: "Microsoft.Resources/resourceGroups",
		Location: g.Location, ManagedBy: g.ManagedBy, Tags: g.Tags,
	}
	out.Properties.ProvisioningState = "Succeeded"
	if g.Deleting {
		out.Properties.ProvisioningState = "Deleting"
	}
	return out
}

// groupBody is a resource group in requests. Members that only answers have
// are accepted and ignored: clients send back what they read.
type groupBody struct {
	Name      *string            `json:"name"`
	Location  string             `json:"location"`
	ManagedBy *string            `json:"managedBy"`
	Tags      *map[string]string `json:"tags"`
	// Properties has nothing that can be set; it must be an object all the same.
	Properties map[string]json.RawMessage `json:"properties"`
}

func (b *groupBody) change() groupChange {
	return groupChange{location: b.Location, managedBy: b.ManagedBy, tags: b.Tags}
}

// putGroupHTTP replaces a group: tags and managedBy that the body leaves out
// are taken away.
func (h *Handler) putGroupHTTP(w http.ResponseWriter, r *http.Request, q *Request) error {
	var body groupBody
	if err := web.DecodeJSON(r, codeContent, &body); err != nil {
		return err
	}
	c := body.change()
	if c.location == "" {
		_, err := checkLocation("", typeGroup)
		return err
	}
	if c.tags == nil {
		c.tags = new(map[string]string)
	}
	if c.managedBy == nil {
		c.managedBy = new(string)
	}
	g, created, err := h.putGroup(r.Context(), q.ID, c)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return web.WriteJSON(w, status, g.wire())
}

func (h *Handler) patchGroupHTTP(w http.ResponseWriter, r *http.Request, q *Request) error {
	var body groupBody
	if err := web.DecodeJSON(r, codeContent, &body); err != nil {
		return err
	}
	g, err := h.patchGroup(r.Context(), q.ID, body.change())
	if err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, g.wire())
}

func (h *Handler) getGroup(w http.ResponseWriter, r *http.Request, q *Request) error {
	g, ok, err := h.group(r.Context(), q.ID)
	if err != nil {
		return err
	}
	if !ok {
		return notFound(q.ID)
	}
	return web.WriteJSON(w, http.StatusOK, g.wire())
}

// deleteGroup answers 200 when all is done: Azure's 202 would make clients
// wait for an end that is there already.
func (h *Handler) deleteGroup(w http.ResponseWriter, r *http.Request, q *Request) error {
	existed, err := h.removeGroup(r.Context(), q.TenantID, q.ID, q.Principal.ObjectID)
	if err != nil {
		return err
	}
	if !existed {
		return notFound(q.ID)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

var groupFilter = filterRules{properties: map[string]string{"tagname": "eq", "tagvalue": "eq", "location": "eq ne", "name": "eq ne"}}

func (h *Handler) listGroups(w http.ResponseWriter, r *http.Request, q *Request) error {
	f, err := q.filter(&groupFilter)
	if err != nil {
		return err
	}
	all, err := h.groupsOf(r.Context(), q.ID.Subscription())
	if err != nil {
		return err
	}
	shown := all[:0]
	for _, g := range all {
		env := filterEnv{tags: g.Tags, property: func(name string) string {
			if name == "location" {
				return g.Location
			}
			return g.Name
		}}
		if match(f, &env) {
			shown = append(shown, g)
		}
	}
	shown, err = readable(r.Context(), q, shown, actionGroup+"read", (*group).id)
	if err != nil {
		return err
	}
	return writePage(w, q, shown, func(g *group) string { return strings.ToLower(g.Name) }, func(g *group) wireGroup { return g.wire() })
}

// filter parses the request's $filter.
func (q *Request) filter(rules *filterRules) (filter, error) {
	s, err := parameter(q.Query, "$filter")
	if err != nil {
		return nil, err
	}
	return parseFilter(s, rules)
}
