package aks

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/kubeconfig"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/web"
)

const (
	typeCluster   = "Microsoft.ContainerService/managedClusters"
	actionCluster = typeCluster + "/"
)

// Codes of refusals.
const (
	codeContent      = "InvalidRequestContent"
	codeRegistration = "InvalidClusterRegistration"
)

// Register adds the type and its actions to the management API.
func (c *Clusters) Register(h *arm.Handler) {
	h.Register(arm.ResourceType{
		Name: typeCluster, Versions: versions(),
		Find:   c.find,
		List:   c.listResources,
		Delete: c.remove,
		Routes: []arm.Route{
			{Method: "GET", Collection: true, Levels: arm.AtSubscription | arm.AtGroup, Action: actionCluster + "read", Visible: true, Handle: c.listClusters},
			{Method: "GET", Levels: arm.AtGroup, Action: actionCluster + "read", Handle: c.get},
			{Method: "PUT", Levels: arm.AtGroup, Action: actionCluster + "write", Handle: c.put},
			{Method: "PATCH", Levels: arm.AtGroup, Action: actionCluster + "write", Handle: c.patch},
			{Method: "DELETE", Levels: arm.AtGroup, Action: actionCluster + "delete", Handle: c.delete},
		},
	})
	post := func(name string, handle func(http.ResponseWriter, *http.Request, *arm.Request) error) {
		h.Register(arm.ResourceType{
			Name: typeCluster + "/" + name, Hidden: true,
			Routes: []arm.Route{{Method: "POST", Collection: true, Levels: arm.AtGroup, Action: actionCluster + name + "/action", Handle: handle}},
		})
	}
	// Both give the one kubeconfig that there is, as in a cluster of Azure's
	// whose users are not Entra's.
	post("listClusterUserCredential", c.credential("clusterUser"))
	post("listClusterAdminCredential", c.credential("clusterAdmin"))
	post("pushKeys", c.pushKeys)
	h.Register(arm.ResourceType{
		Name: typeCluster + "/operationStatuses", Hidden: true, Leaf: true,
		Routes: []arm.Route{{Method: "GET", Levels: arm.AtGroup, Action: actionCluster + "read", Handle: c.operationStatus}},
	})
}

func (c *Clusters) find(ctx context.Context, _ string, id arm.ID) (string, bool, error) {
	have, ok, err := c.load(ctx, id)
	return have.ID, ok, err
}

func (c *Clusters) listResources(ctx context.Context, scope arm.ID) ([]arm.Resource, error) {
	all, err := c.list(ctx, scope)
	if err != nil {
		return nil, err
	}
	out := make([]arm.Resource, len(all))
	for i := range all {
		a := &all[i]
		out[i] = arm.Resource{
			ID: a.ID, Name: a.Name, Type: typeCluster, Location: a.Location, Tags: a.Tags,
			Created: a.Created, Updated: a.Updated, Read: actionCluster + "read",
		}
	}
	return out, nil
}

func (c *Clusters) get(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	have, ok, err := c.load(r.Context(), q.ID)
	if err != nil {
		return err
	}
	if !ok {
		return arm.NotFound(q.ID)
	}
	return writeCluster(w, http.StatusOK, &have)
}

func (c *Clusters) listClusters(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	all, err := c.list(r.Context(), q.ID.Scope())
	if err != nil {
		return err
	}
	shown := all[:0]
	for _, a := range all {
		ok, err := q.Allowed(r.Context(), actionCluster+"read", a.ID)
		if err != nil {
			return err
		}
		if ok {
			shown = append(shown, a)
		}
	}
	return arm.WritePage(w, q, shown, func(a *cluster) string { return strings.ToLower(a.ID) }, wireOf)
}

// patch changes the tags: all that Azure's PATCH knows too.
func (c *Clusters) patch(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	var body map[string]any
	var typed struct {
		Tags *map[string]string `json:"tags"`
	}
	if err := decodeTwice(r, &body, &typed); err != nil {
		return err
	}
	for name := range body {
		if name != "tags" {
			return fault.BadRequest(codeContent, "PATCH of a managed cluster changes 'tags' and nothing else.")
		}
	}
	if typed.Tags != nil {
		if err := arm.CheckTags(*typed.Tags); err != nil {
			return err
		}
	}
	now, err := c.change(r, q.ID, func(_ *store.Tx, a *cluster) error {
		if typed.Tags != nil {
			a.Tags = *typed.Tags
		}
		return nil
	})
	if err != nil {
		return err
	}
	return writeCluster(w, http.StatusOK, &now)
}

func (c *Clusters) delete(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	have, existed, err := c.load(r.Context(), q.ID)
	if err != nil {
		return err
	}
	if existed {
		if err := precondition(r, &have, true); err != nil {
			return err
		}
	}
	if err := c.remove(r.Context(), q.ID, q.Principal.ObjectID); err != nil {
		return err
	}
	// Not 200, which the SDKs behind az refuse here.
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// change applies a change to an existing cluster, in one transaction, under
// the request's preconditions.
func (c *Clusters) change(r *http.Request, id arm.ID, apply func(tx *store.Tx, a *cluster) error) (a cluster, err error) {
	err = c.s.Update(r.Context(), func(tx *store.Tx) error {
		var ok bool
		if a, ok, err = c.clusters.Get(tx, keyOf(id)); err != nil {
			return err
		}
		if !ok {
			return arm.NotFound(id)
		}
		if err := precondition(r, &a, true); err != nil {
			return err
		}
		if err := apply(tx, &a); err != nil {
			return err
		}
		a.touch(c.o.Now())
		return c.clusters.Put(tx, keyOf(id), a)
	})
	return a, err
}

// precondition judges If-Match and If-None-Match.
func precondition(r *http.Request, a *cluster, exists bool) error {
	lists := func(header string) bool {
		for tag := range strings.SplitSeq(r.Header.Get(header), ",") {
			if tag = strings.Trim(strings.TrimSpace(tag), `"`); exists && (tag == "*" || tag == a.ETag) {
				return true
			}
		}
		return false
	}
	if r.Header.Get("If-Match") != "" && !lists("If-Match") || r.Header.Get("If-None-Match") != "" && lists("If-None-Match") {
		return fault.New(fault.Precondition, "PreconditionFailed", "The managed cluster has another state (eTag) than the request expects. Read it again.")
	}
	return nil
}

type wireCredentials struct {
	Kubeconfigs []wireCredential `json:"kubeconfigs"`
}

type wireCredential struct {
	Name  string `json:"name"`
	Value []byte `json:"value"` // base64 in JSON
}

// credential answers with the kubeconfig, its entries named as Azure names
// them: az merges it into the file of whoever asks, and calls a context whose
// user is a clusterAdmin NAME-admin.
func (c *Clusters) credential(kind string) func(http.ResponseWriter, *http.Request, *arm.Request) error {
	return func(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
		id := q.ID.Parent()
		var have cluster
		var access kubeconfig.Access
		var ok bool
		err := c.s.View(r.Context(), func(tx *store.Tx) (err error) {
			if have, ok, err = c.clusters.Get(tx, keyOf(id)); err == nil && !ok {
				return arm.NotFound(id)
			} else if err != nil {
				return err
			}
			access, ok, err = c.kubeconfigs.Get(tx, keyOf(id))
			return err
		})
		if err != nil {
			return err
		}
		if !ok {
			return fault.Conflict("KubeconfigNotRegistered", "The cluster '%s' was registered without a kubeconfig. Register it again with one: podkey cluster register -g %s -n %s --kubeconfig FILE", have.Name, have.ResourceGroup, have.Name)
		}
		text, err := access.Render(have.Name, kind+"_"+have.ResourceGroup+"_"+have.Name, have.Name)
		if err != nil {
			return err
		}
		w.Header().Set("Cache-Control", "no-store")
		return web.WriteJSON(w, http.StatusOK, wireCredentials{[]wireCredential{{kind, text}}})
	}
}

// versions are the api-versions that published clients send.
func versions() []string {
	all := []string{
		"2017-08-31", "2018-03-31", "2019-02-01", "2019-04-01", "2019-06-01", "2019-08-01", "2019-10-01", "2019-11-01",
		"2020-01-01", "2020-02-01", "2020-03-01", "2020-04-01", "2020-06-01", "2020-07-01", "2020-09-01", "2020-11-01", "2020-12-01",
		"2021-02-01", "2021-03-01", "2021-05-01", "2021-07-01", "2021-08-01", "2021-09-01", "2021-10-01", "2021-11-01-preview",
		"2022-01-01", "2022-02-01", "2022-03-01", "2022-04-01", "2022-06-01", "2022-07-01", "2022-09-01", "2022-11-01",
		"2022-01-02-preview", "2022-02-02-preview", "2022-03-02-preview", "2022-04-02-preview", "2022-05-02-preview", "2022-06-02-preview",
		"2022-07-02-preview", "2022-08-02-preview", "2022-08-03-preview", "2022-09-02-preview", "2022-10-02-preview", "2022-11-02-preview",
		"2023-01-01", "2023-02-01", "2023-03-01", "2023-04-01", "2023-05-01", "2023-06-01", "2023-07-01", "2023-08-01", "2023-09-01", "2023-10-01", "2023-11-01",
		"2023-01-02-preview", "2023-02-02-preview", "2023-03-02-preview", "2023-04-02-preview", "2023-05-02-preview", "2023-06-02-preview",
		"2023-07-02-preview", "2023-08-02-preview", "2023-09-02-preview", "2023-10-02-preview", "2023-11-02-preview",
		"2024-01-01", "2024-02-01", "2024-05-01", "2024-07-01", "2024-08-01", "2024-09-01", "2024-10-01",
		"2024-01-02-preview", "2024-02-02-preview", "2024-03-02-preview", "2024-04-02-preview", "2024-05-02-preview", "2024-06-02-preview",
		"2024-07-02-preview", "2024-09-02-preview", "2024-10-02-preview",
		"2025-01-01", "2025-02-01", "2025-03-01", "2025-04-01", "2025-05-01", "2025-07-01", "2025-08-01", "2025-09-01", "2025-10-01",
		"2025-01-02-preview", "2025-02-02-preview", "2025-03-02-preview", "2025-04-02-preview", "2025-05-02-preview", "2025-06-02-preview",
		"2025-07-02-preview", "2025-08-02-preview", "2025-09-02-preview", "2025-10-02-preview",
		"2026-01-01", "2026-02-01", "2026-03-01", "2026-04-01", "2026-05-01", "2026-06-01",
		"2026-01-02-preview", "2026-02-02-preview", "2026-03-02-preview", "2026-04-02-preview",
	}
	slices.Sort(all)
	return all
}
