package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"k8s.io/client-go/rest"

	"github.com/podkey/podkey/internal/pki"
)

// apiServer speaks as much of the Kubernetes API as the webhook needs: get,
// list, watch, create, update and merge patch of a handful of resources, with
// resource versions, conflicts and histories that run out. It stands in for a
// real API server because that takes minutes to build; the cluster suite runs
// the same program against the real one. client-go's own fakes would not do:
// they neither know conflicts nor go through the wire.
type apiServer struct {
	t    testing.TB
	http *httptest.Server

	mu      sync.Mutex
	wake    chan struct{} // closed and replaced at each change
	version int
	oldest  int // versions before it are "too old" to watch from
	objects map[string]object
	history []change
	down    bool
	minor   string
	token   string         // that it takes
	deny    map[string]int // "VERB resource" -> status
	calls   map[string]int // "VERB resource" -> how often
	stop    chan struct{}  // closed to cut all watches
}

type object = map[string]any

// change is an event of a watch.
type change struct {
	version  int
	kind     string
	key      string
	obj      object
	resource string
}

func newAPIServer(t testing.TB) *apiServer {
	a := &apiServer{
		t: t, wake: make(chan struct{}), stop: make(chan struct{}), objects: map[string]object{},
		minor: "36", token: "replica", deny: map[string]int{}, calls: map[string]int{}, version: 1,
	}
	a.http = httptest.NewUnstartedServer(a)
	a.http.EnableHTTP2 = true
	a.http.StartTLS()
	t.Cleanup(func() {
		a.cut()
		a.http.CloseClientConnections()
		a.http.Close()
	})
	return a
}

func (a *apiServer) config() *rest.Config {
	return &rest.Config{
		Host:            a.http.URL,
		QPS:             -1,
		BearerToken:     "replica",
		TLSClientConfig: rest.TLSClientConfig{CAData: pki.EncodeCertificates(a.http.Certificate().Raw)},
	}
}

// cut ends every watch, as a restart does.
func (a *apiServer) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.stop)
	a.stop = make(chan struct{})
}

// restart makes the server refuse everything and forget its history, until up.
func (a *apiServer) restart() (up func()) {
	a.mu.Lock()
	a.down = true
	a.oldest = a.version + 1
	a.mu.Unlock()
	a.cut()
	a.http.CloseClientConnections()
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.down = false
	}
}

// changes is closed at the next change.
func (a *apiServer) changes() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wake
}

func (a *apiServer) called(what string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[what]
}

func (a *apiServer) refuse(what string, status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deny[what] = status
}

// get is a copy of an object, nil if there is none. The key is
// "resource/[namespace/]name".
func (a *apiServer) get(key string) object {
	a.mu.Lock()
	defer a.mu.Unlock()
	return clone(a.objects[key])
}

func clone(o object) object {
	if o == nil {
		return nil
	}
	b, _ := json.Marshal(o)
	var out object
	_ = json.Unmarshal(b, &out)
	return out
}

// put stores an object as an administrator would, whatever its version.
func (a *apiServer) put(key string, o object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kind := "ADDED"
	if a.objects[key] != nil {
		kind = "MODIFIED"
	}
	a.store(kind, key, clone(o))
}

func (a *apiServer) remove(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.objects[key]; o != nil {
		a.store("DELETED", key, clone(o))
	}
}

// change edits an object.
func (a *apiServer) change(key string, edit func(object)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := clone(a.objects[key])
	if o == nil {
		a.t.Errorf("there is no %s", key)
		return
	}
	edit(o)
	a.store("MODIFIED", key, o)
}

func (a *apiServer) store(kind, key string, o object) {
	a.version++
	meta, _ := o["metadata"].(object)
	if meta == nil {
		meta = object{}
		o["metadata"] = meta
	}
	parts := strings.Split(key, "/")
	meta["name"] = parts[len(parts)-1]
	if len(parts) == 3 {
		meta["namespace"] = parts[1]
	}
	if meta["uid"] == nil {
		meta["uid"] = fmt.Sprintf("uid-%d", a.version)
	}
	meta["resourceVersion"] = strconv.Itoa(a.version)
	if kind == "DELETED" {
		delete(a.objects, key)
	} else {
		a.objects[key] = o
	}
	a.history = append(a.history, change{a.version, kind, key, o, parts[0]})
	close(a.wake)
	a.wake = make(chan struct{})
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	down, minor, token, stop := a.down, a.minor, a.token, a.stop
	a.mu.Unlock()
	if down {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+token {
		status(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized")
		return
	}
	if r.URL.Path == "/version" {
		answer(w, http.StatusOK, object{"major": "1", "minor": minor, "gitVersion": "v1." + minor + ".0"})
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/api/v1/")
	if !ok {
		rest, _ = strings.CutPrefix(r.URL.Path, "/apis/admissionregistration.k8s.io/v1/")
	}
	parts := strings.Split(rest, "/")
	namespace := ""
	if parts[0] == "namespaces" && len(parts) > 2 {
		namespace, parts = parts[1], parts[2:]
	}
	resource, name := parts[0], ""
	if len(parts) > 1 {
		name = parts[1]
	}
	verb := map[string]string{"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch"}[r.Method]
	if verb == "get" && name == "" {
		verb = "list"
		if r.URL.Query().Get("watch") != "" {
			verb = "watch"
		}
	}
	a.mu.Lock()
	a.calls[verb+" "+resource]++
	denied := a.deny[verb+" "+resource]
	a.mu.Unlock()
	if denied != 0 {
		status(w, denied, http.StatusText(denied), "refused by the test")
		return
	}
	partial := strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
	key := strings.Join(slices.DeleteFunc([]string{resource, namespace, name}, func(s string) bool { return s == "" }), "/")
	switch verb {
	case "watch":
		a.watch(w, r, resource, namespace, partial, stop)
	case "list":
		a.list(w, r, resource, namespace, partial)
	case "get":
		if o := a.get(key); o != nil {
			answer(w, http.StatusOK, view(o, resource, partial))
			return
		}
		status(w, http.StatusNotFound, "NotFound", fmt.Sprintf("%s %q not found", resource, name))
	default:
		a.write(w, r, verb, resource, key)
	}
}

func (a *apiServer) write(w http.ResponseWriter, r *http.Request, verb, resource, key string) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		status(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var o object
	if verb == "patch" {
		old, _ := json.Marshal(a.objects[key])
		if a.objects[key] == nil {
			status(w, http.StatusNotFound, "NotFound", key+" not found")
			return
		}
		if b, err = jsonpatch.MergePatch(old, b); err != nil {
			status(w, http.StatusBadRequest, "BadRequest", err.Error())
			return
		}
	}
	if err := json.Unmarshal(b, &o); err != nil {
		status(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	meta, _ := o["metadata"].(object)
	kind := "MODIFIED"
	switch verb {
	case "create":
		kind = "ADDED"
		key += "/" + fmt.Sprint(meta["name"])
		if a.objects[key] != nil {
			status(w, http.StatusConflict, "AlreadyExists", fmt.Sprintf("%s already exists", key))
			return
		}
	case "update":
		old := a.objects[key]
		if old == nil {
			status(w, http.StatusNotFound, "NotFound", key+" not found")
			return
		}
		if meta["resourceVersion"] != old["metadata"].(object)["resourceVersion"] {
			status(w, http.StatusConflict, "Conflict", "the object has been modified")
			return
		}
	}
	a.store(kind, key, o)
	answer(w, http.StatusOK, view(o, resource, false))
}

var kinds = map[string][2]string{
	"secrets":                         {"v1", "Secret"},
	"serviceaccounts":                 {"v1", "ServiceAccount"},
	"events":                          {"v1", "Event"},
	"mutatingwebhookconfigurations":   {"admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"},
	"validatingwebhookconfigurations": {"admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"},
}

func view(o object, resource string, partial bool) object {
	if partial {
		return object{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": o["metadata"]}
	}
	o = maps.Clone(o)
	o["apiVersion"], o["kind"] = kinds[resource][0], kinds[resource][1]
	return o
}

// selected reports whether an object is in the namespace and has the name that
// the field selector asks for.
func selected(r *http.Request, key, resource, namespace string) bool {
	parts := strings.Split(key, "/")
	if parts[0] != resource || namespace != "" && parts[1] != namespace {
		return false
	}
	name, ok := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	return !ok || parts[len(parts)-1] == name
}

func (a *apiServer) list(w http.ResponseWriter, r *http.Request, resource, namespace string, partial bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	items := []object{}
	for _, key := range slices.Sorted(maps.Keys(a.objects)) {
		if selected(r, key, resource, namespace) {
			items = append(items, view(a.objects[key], resource, partial))
		}
	}
	list := object{"apiVersion": kinds[resource][0], "kind": kinds[resource][1] + "List"}
	if partial {
		list = object{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList"}
	}
	list["metadata"] = object{"resourceVersion": strconv.Itoa(a.version)}
	list["items"] = items
	answer(w, http.StatusOK, list)
}

func (a *apiServer) watch(w http.ResponseWriter, r *http.Request, resource, namespace string, partial bool, stop <-chan struct{}) {
	q := r.URL.Query()
	from, _ := strconv.Atoi(q.Get("resourceVersion"))
	enc := json.NewEncoder(w)
	send := func(kind string, o object) { _ = enc.Encode(object{"type": kind, "object": o}) }
	a.mu.Lock()
	if from != 0 && from < a.oldest {
		a.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		send("ERROR", object{"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old resource version"})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if q.Get("sendInitialEvents") == "true" {
		for _, key := range slices.Sorted(maps.Keys(a.objects)) {
			if selected(r, key, resource, namespace) {
				send("ADDED", view(a.objects[key], resource, partial))
			}
		}
		send("BOOKMARK", view(object{"metadata": object{
			"resourceVersion": strconv.Itoa(a.version), "annotations": object{"k8s.io/initial-events-end": "true"},
		}}, resource, partial))
		from = a.version
	}
	a.mu.Unlock()
	for {
		a.mu.Lock()
		wake := a.wake
		for _, c := range a.history {
			if c.version > from && selected(r, c.key, resource, namespace) {
				send(c.kind, view(c.obj, resource, partial))
			}
		}
		from = a.version
		a.mu.Unlock()
		_ = http.NewResponseController(w).Flush()
		select {
		case <-wake:
		case <-stop:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func answer(w http.ResponseWriter, code int, o object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(o)
}

func status(w http.ResponseWriter, code int, reason, message string) {
	answer(w, code, object{"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": message})
}

// await returns when ok does, which is asked again whenever one of the
// channels that signals makes is closed.
func await(t testing.TB, what string, signals []func() <-chan struct{}, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		woken := make(chan struct{}, len(signals))
		done, stop := context.WithCancel(ctx)
		for _, s := range signals {
			c := s()
			go func() {
				select {
				case <-c:
					woken <- struct{}{}
				case <-done.Done():
				}
			}()
		}
		good := ok()
		if !good {
			select {
			case <-woken:
			case <-ctx.Done():
				stop()
				t.Fatalf("waited in vain: %s", what)
			}
		}
		stop()
		if good {
			return
		}
	}
}
