// Package installtest is a small API server of Kubernetes for tests of
// installing: objects by path, server-side apply, lists by label, and just
// enough of what a cluster does by itself.
//
// It stands in for a real one, which needs root, Linux and a quarter of a
// minute to start; the end-to-end suite installs into that. What it is for are
// the answers that a real one gives only when something is broken.
package installtest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
)

// Token is the credential of the one user, who may do everything.
const Token = "hunter2-installs-webhooks"

// Object is an object in the form of its JSON.
type Object = map[string]any

// Cluster is an API server. The fields may be set before it is used.
type Cluster struct {
	*httptest.Server

	// Before sees each request first, and answers it if it returns true.
	Before func(w http.ResponseWriter, r *http.Request) bool
	// Sick clusters do not roll out Deployments; each gets a pod that waits for
	// this reason, with this message.
	Sick, SickMessage string
	// NoCA keeps webhook configurations without a CA bundle.
	NoCA bool
	// Old servers know no aggregated discovery.
	Old bool

	mu      sync.Mutex
	objects map[string]Object // by path
	applied map[string]bool   // paths of those that were made by applying
	version int
	calls   []string
}

// New starts an API server that ends with the test.
func New(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{objects: map[string]Object{}, applied: map[string]bool{}}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(c.serve))
	c.Server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that hang up are what tests are about
	c.EnableHTTP2 = true
	c.StartTLS()
	t.Cleanup(c.Close)
	return c
}

// CA is the certificate to trust, as PEM.
func (c *Cluster) CA() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw})
}

// Config is how to reach it.
func (c *Cluster) Config() *rest.Config {
	return &rest.Config{Host: c.URL, BearerToken: Token, TLSClientConfig: rest.TLSClientConfig{CAData: c.CA()}}
}

// Kubeconfig is a kubeconfig for a server, which is c.URL if empty; user is
// YAML, the token if empty.
func (c *Cluster) Kubeconfig(server, user string) string {
	if server == "" {
		server = c.URL
	}
	if user == "" {
		user = "token: " + Token
	}
	return "apiVersion: v1\nkind: Config\ncurrent-context: main\ncontexts: [{name: main, context: {cluster: c, user: u}}]\n" +
		"clusters: [{name: c, cluster: {server: '" + server + "', certificate-authority-data: " + base64.StdEncoding.EncodeToString(c.CA()) + "}}]\n" +
		"users: [{name: u, user: {" + user + "}}]\n"
}

// Calls are the requests until now that were not reads, as METHOD PATH.
func (c *Cluster) Calls() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// Paths are the paths of all objects, sorted.
func (c *Cluster) Paths() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.objects))
}

// Get is the object at a path; nil if there is none.
func (c *Cluster) Get(path string) Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	return clone(c.objects[path])
}

// Put makes an object, as somebody else would. A nil one removes it.
func (c *Cluster) Put(path string, o Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.applied, path)
	if o == nil {
		delete(c.objects, path)
		return
	}
	c.store(path, clone(o))
}

// Edit changes an object that is there.
func (c *Cluster) Edit(path string, change func(o Object)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := clone(c.objects[path])
	change(o)
	c.store(path, o)
}

// Heal makes a sick cluster a healthy one.
func (c *Cluster) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Sick = ""
	for path, o := range c.objects {
		if o["kind"] == "Deployment" {
			c.live(path, o)
		}
	}
}

func clone(o Object) Object {
	if o == nil {
		return nil
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	var out Object
	if err := json.Unmarshal(b, &out); err != nil {
		panic(err)
	}
	return out
}

// below returns a member that is a map, made if there is none.
func below(o Object, name string) Object {
	m, _ := o[name].(map[string]any)
	if m == nil {
		m = Object{}
		o[name] = m
	}
	return m
}

// store writes an object with what a server adds to it.
func (c *Cluster) store(path string, o Object) {
	meta, old := below(o, "metadata"), c.objects[path]
	if old != nil {
		was := below(old, "metadata")
		meta["uid"], meta["resourceVersion"], meta["generation"] = was["uid"], was["resourceVersion"], was["generation"]
		if reflect.DeepEqual(old, o) {
			return
		}
	}
	c.version++
	if old == nil {
		meta["uid"], meta["generation"] = "uid-"+strconv.Itoa(c.version), 1.0
	} else if !reflect.DeepEqual(old["spec"], o["spec"]) {
		g, _ := meta["generation"].(float64)
		meta["generation"] = g + 1
	}
	meta["resourceVersion"] = strconv.Itoa(c.version)
	c.objects[path] = o
	c.live(path, o)
}

// live does what the rest of a cluster would.
func (c *Cluster) live(path string, o Object) {
	switch o["kind"] {
	case "Deployment":
		spec, meta := below(o, "spec"), below(o, "metadata")
		template := below(below(spec, "template"), "metadata")
		podPath := strings.Replace(strings.Replace(path, "/apis/apps/v1/", "/api/v1/", 1), "/deployments/", "/pods/", 1) + "-1"
		if c.Sick == "" {
			n := spec["replicas"]
			o["status"] = Object{"observedGeneration": meta["generation"], "replicas": n, "updatedReplicas": n, "availableReplicas": n}
			delete(c.objects, podPath)
			return
		}
		o["status"] = Object{"observedGeneration": meta["generation"], "replicas": spec["replicas"], "updatedReplicas": spec["replicas"], "availableReplicas": 0.0}
		c.objects[podPath] = Object{
			"apiVersion": "v1", "kind": "Pod",
			"metadata": Object{"name": below(o, "metadata")["name"].(string) + "-1", "namespace": meta["namespace"], "labels": template["labels"]},
			"status": Object{"containerStatuses": []any{Object{
				"name": "webhook", "ready": false, "state": Object{"waiting": Object{"reason": c.Sick, "message": c.SickMessage}},
			}}},
		}
	case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration":
		list, _ := o["webhooks"].([]any)
		for _, w := range list {
			if m, _ := w.(map[string]any); m != nil && !c.NoCA {
				below(m, "clientConfig")["caBundle"] = "Q0E="
			}
		}
	}
}

func (c *Cluster) serve(w http.ResponseWriter, r *http.Request) {
	if c.Before != nil && c.Before(w, r) {
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+Token {
		Refuse(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Method != http.MethodGet {
		c.calls = append(c.calls, r.Method+" "+r.URL.Path)
	}
	switch {
	case r.URL.Path == "/api" || r.URL.Path == "/apis":
		c.discover(w, r.URL.Path)
	case r.Method == http.MethodPatch:
		c.apply(w, r, body)
	case r.Method == http.MethodDelete:
		c.remove(w, r, body)
	case r.Method == http.MethodGet && isCollection(r.URL.Path):
		c.list(w, r)
	case r.Method == http.MethodGet && c.objects[r.URL.Path] != nil:
		write(w, http.StatusOK, c.objects[r.URL.Path])
	default:
		Refuse(w, http.StatusNotFound, "NotFound", r.URL.Path+" not found")
	}
}

// isCollection tells whether a path ends in a resource and not in a name.
func isCollection(path string) bool {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	n := len(parts) - 2 // api, v1
	if parts[0] == "apis" {
		n--
	}
	return n == 1 || n == 3
}

func (c *Cluster) apply(w http.ResponseWriter, r *http.Request, body []byte) {
	if r.Header.Get("Content-Type") != "application/apply-patch+yaml" || r.URL.Query().Get("fieldManager") == "" {
		Refuse(w, http.StatusUnsupportedMediaType, "UnsupportedMediaType", "apply only")
		return
	}
	var patch Object
	if err := json.Unmarshal(body, &patch); err != nil {
		Refuse(w, http.StatusBadRequest, "BadRequest", "not JSON")
		return
	}
	if namespaces, rest, ok := strings.Cut(r.URL.Path, "/namespaces/"); ok {
		if ns, _, in := strings.Cut(rest, "/"); in && c.objects["/api/v1/namespaces/"+ns] == nil {
			Refuse(w, http.StatusNotFound, "NotFound", `namespaces "`+ns+`" not found in `+namespaces)
			return
		}
	}
	have := clone(c.objects[r.URL.Path])
	if have == nil {
		have, c.applied[r.URL.Path] = Object{}, true
	} else if !c.applied[r.URL.Path] && r.URL.Query().Get("force") != "true" {
		Refuse(w, http.StatusConflict, "Conflict", "Apply failed with 1 conflict: conflict with \"somebody\"")
		return
	}
	c.store(r.URL.Path, merge(have, patch))
	write(w, http.StatusOK, c.objects[r.URL.Path])
}

// merge applies a patch: maps are merged, lists of webhooks by their names,
// and other lists are replaced.
func merge(have, patch Object) Object {
	for k, v := range patch {
		old, was := have[k].(map[string]any)
		m, is := v.(map[string]any)
		list, isList := v.([]any)
		oldList, wasList := have[k].([]any)
		switch {
		case was && is:
			have[k] = merge(old, m)
		case k == "webhooks" && isList && wasList:
			for i := range list {
				for j := range oldList {
					a, b := list[i].(map[string]any), oldList[j].(map[string]any)
					if a["name"] == b["name"] {
						list[i] = merge(b, a)
					}
				}
			}
			have[k] = list
		default:
			have[k] = v
		}
	}
	return have
}

func (c *Cluster) remove(w http.ResponseWriter, r *http.Request, body []byte) {
	o := c.objects[r.URL.Path]
	if o == nil {
		Refuse(w, http.StatusNotFound, "NotFound", r.URL.Path+" not found")
		return
	}
	var options struct {
		Preconditions struct {
			UID string `json:"uid"`
		} `json:"preconditions"`
	}
	if json.Unmarshal(body, &options) == nil && options.Preconditions.UID != "" && options.Preconditions.UID != below(o, "metadata")["uid"] {
		Refuse(w, http.StatusConflict, "Conflict", "another object")
		return
	}
	delete(c.objects, r.URL.Path)
	maps.DeleteFunc(c.objects, func(p string, _ Object) bool { // the garbage collector, and a namespace's end
		return o["kind"] == "Namespace" && strings.Contains(p, "/namespaces/"+below(o, "metadata")["name"].(string)+"/")
	})
	Refuse(w, http.StatusOK, "", "")
}

func (c *Cluster) list(w http.ResponseWriter, r *http.Request) {
	items := []any{}
	for _, path := range slices.Sorted(maps.Keys(c.objects)) {
		name, in := strings.CutPrefix(path, r.URL.Path+"/")
		if !in || strings.Contains(name, "/") {
			continue
		}
		labels := below(below(c.objects[path], "metadata"), "labels")
		fits := true
		for pair := range strings.SplitSeq(r.URL.Query().Get("labelSelector"), ",") {
			k, v, ok := strings.Cut(pair, "=")
			fits = fits && (!ok || labels[k] == v)
		}
		if fits {
			items = append(items, c.objects[path])
		}
	}
	write(w, http.StatusOK, Object{"apiVersion": "v1", "kind": "List", "metadata": Object{}, "items": items})
}

// discover lists what there is: what this package is used with, and a custom
// resource.
func (c *Cluster) discover(w http.ResponseWriter, path string) {
	if c.Old {
		write(w, http.StatusOK, Object{"kind": "APIVersions", "versions": []any{"v1"}})
		return
	}
	group := func(name string, resources ...string) any {
		var list []any
		for _, r := range resources {
			scope := "Namespaced"
			if strings.HasPrefix(r, "cluster") || r == "namespaces" {
				scope = "Cluster"
			}
			list = append(list, Object{"resource": r, "scope": scope, "verbs": []any{"get", "list"}})
		}
		return Object{"metadata": Object{"name": name}, "versions": []any{Object{"version": "v1", "freshness": "Current", "resources": list}}}
	}
	items := []any{
		group("apps", "deployments"), group("policy", "poddisruptionbudgets"), group("shop.example", "orders"),
		group("rbac.authorization.k8s.io", "roles", "rolebindings", "clusterroles"),
	}
	if path == "/api" {
		items = []any{group("", "namespaces", "pods", "services", "secrets", "serviceaccounts", "configmaps", "events")}
	}
	write(w, http.StatusOK, Object{"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items})
}

// Refuse answers with a Status of Kubernetes'.
func Refuse(w http.ResponseWriter, code int, reason, message string) {
	status := "Failure"
	if code == http.StatusOK {
		status = "Success"
	}
	write(w, code, Object{"apiVersion": "v1", "kind": "Status", "status": status, "code": code, "reason": reason, "message": message})
}

func write(w http.ResponseWriter, code int, v any) {
	var b bytes.Buffer
	_ = json.NewEncoder(&b).Encode(v)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}
