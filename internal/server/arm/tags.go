package arm

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/web"
)

const typeTags = "Microsoft.Resources/tags"

// registerTags adds the tags of a resource or group as a thing of their own,
// named default, which az tag works on. They are read and written through the
// resource's own GET and PATCH, so that its own permissions hold too, and its
// rules for tags.
func (h *Handler) registerTags() {
	const levels = AtSubscription | AtGroup | AtResource
	h.Register(ResourceType{
		Name: typeTags, Versions: versionsResources, Leaf: true,
		Routes: []Route{
			{Method: "GET", Levels: levels, Action: typeTags + "/read", Handle: h.getTags},
			{Method: "PUT", Levels: levels, Action: typeTags + "/write", Handle: h.putTags},
			{Method: "PATCH", Levels: levels, Action: typeTags + "/write", Handle: h.patchTags},
			{Method: "DELETE", Levels: levels, Action: typeTags + "/delete", Handle: h.deleteTags},
		},
	})
}

type wireTags struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	Type       string         `json:"type"`
	Properties tagsProperties `json:"properties"`
}

type tagsProperties struct {
	Tags map[string]string `json:"tags"`
}

// tagsBody is tags in requests. Operation is for PATCH.
type tagsBody struct {
	Operation  string          `json:"operation"`
	Properties *tagsProperties `json:"properties"`
}

func decodeTags(r *http.Request) (tagsBody, error) {
	var b tagsBody
	if err := web.DecodeJSON(r, codeContent, &b); err != nil {
		return b, err
	}
	if b.Properties == nil || b.Properties.Tags == nil {
		return b, fault.BadRequest(codeContent, "The request body has no 'properties.tags'.")
	}
	return b, nil // what tags may be is the resource's to say
}

// ofResource performs a method on what the tags belong to, and returns its
// tags.
func (q *Request) ofResource(ctx context.Context, method string, body any) (map[string]string, error) {
	if !strings.EqualFold(q.ID.Name(), "default") {
		return nil, fault.NotFound(codeNotFound, "The tags of a resource are named 'default'; there is no '%s'.", clip(q.ID.Name()))
	}
	scope := q.ID.Scope()
	rt := q.h.reg.find(scope)
	if rt == nil {
		return nil, notFound(scope)
	}
	op := Operation{Method: method, ID: scope.String(), APIVersion: rt.Versions[len(rt.Versions)-1]}
	if body != nil {
		var err error
		if op.Body, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	a, err := q.Do(ctx, op)
	if err != nil {
		return nil, err
	}
	var got tagsProperties
	err = json.Unmarshal(a.Body, &got)
	return got.Tags, err
}

func (h *Handler) getTags(w http.ResponseWriter, r *http.Request, q *Request) error {
	tags, err := q.ofResource(r.Context(), http.MethodGet, nil)
	if err != nil {
		return err
	}
	return writeTags(w, q, tags)
}

func writeTags(w http.ResponseWriter, q *Request, tags map[string]string) error {
	return web.WriteJSON(w, http.StatusOK, wireTags{ID: q.ID.String(), Name: "default", Type: typeTags, Properties: tagsProperties{tagsWire(tags)}})
}

// setTags replaces the tags of what they belong to.
func (q *Request) setTags(ctx context.Context, w http.ResponseWriter, tags map[string]string) error {
	tags, err := q.ofResource(ctx, http.MethodPatch, tagsProperties{tags})
	if err != nil {
		return err
	}
	return writeTags(w, q, tags)
}

func (h *Handler) putTags(w http.ResponseWriter, r *http.Request, q *Request) error {
	b, err := decodeTags(r)
	if err != nil {
		return err
	}
	return q.setTags(r.Context(), w, b.Properties.Tags)
}

// patchTags merges, replaces or deletes. Two merges at the same time may lose
// one of the two, as when a client reads and writes the resource itself.
func (h *Handler) patchTags(w http.ResponseWriter, r *http.Request, q *Request) error {
	b, err := decodeTags(r)
	if err != nil {
		return err
	}
	change := map[string]func(have, given map[string]string) map[string]string{
		"replace": func(_, given map[string]string) map[string]string { return given },
		"merge":   mergeTags,
		"delete":  withoutTags,
	}[strings.ToLower(b.Operation)]
	if change == nil {
		return fault.BadRequest(codeContent, "The operation '%s' on tags is unknown: it must be 'Merge', 'Replace' or 'Delete'.", clip(b.Operation))
	}
	have, err := q.ofResource(r.Context(), http.MethodGet, nil)
	if err != nil {
		return err
	}
	return q.setTags(r.Context(), w, change(have, b.Properties.Tags))
}

// mergeTags adds given tags to those that are there. Names have no case; the
// letters of the name stay those that are there.
func mergeTags(have, given map[string]string) map[string]string {
	out := maps.Clone(tagsWire(have))
	for name, value := range given {
		out[tagNamed(out, name)] = value
	}
	return out
}

// withoutTags leaves out those tags that have both name and value of a given
// one.
func withoutTags(have, given map[string]string) map[string]string {
	out := maps.Clone(tagsWire(have))
	for name, value := range given {
		if n := tagNamed(out, name); out[n] == value {
			delete(out, n)
		}
	}
	return out
}

// tagNamed is the name of a tag in the letters in which it is there, or as it
// is given.
func tagNamed(tags map[string]string, name string) string {
	for n := range tags {
		if strings.EqualFold(n, name) {
			return n
		}
	}
	return name
}

func (h *Handler) deleteTags(w http.ResponseWriter, r *http.Request, q *Request) error {
	if _, err := q.ofResource(r.Context(), http.MethodPatch, tagsProperties{map[string]string{}}); err != nil {
		return err
	}
	return writeDeleted(w, true)
}
