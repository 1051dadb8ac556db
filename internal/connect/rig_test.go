package connect

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	jsonpatch "github.com/evanphx/json-patch/v5"
	"k8s.io/client-go/rest"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/podkeytest"
)

// kubeAPI speaks as much of the Kubernetes API as connect needs, with resource
// versions and preconditions. Its issuer is Podkey's built-in one, so that its
// tokens are real. It stands in for a real API server because that takes root
// and minutes; the cluster suite runs connect against a real one.
type kubeAPI struct {
	t      testing.TB
	http   *httptest.Server
	issuer string // what the discovery document says
	moved  string // where it leads instead
	token  func(namespace, account, audience string) string

	mu      sync.Mutex
	version int
	objects map[string]map[string]any
	deny    map[string]int // "METHOD path" -> status
	writes  []string       // "METHOD path", tokens apart
}

func newKubeAPI(t testing.TB, p *podkeytest.Podkey) *kubeAPI {
	k := &kubeAPI{t: t, issuer: p.Issuer, objects: map[string]map[string]any{}, deny: map[string]int{}}
	k.token = func(namespace, account, audience string) string {
		return p.ServiceAccountToken(namespace, account, audience)
	}
	k.http = httptest.NewTLSServer(k)
	t.Cleanup(k.http.Close)
	k.put("namespaces/default", map[string]any{})
	return k
}

func (k *kubeAPI) cluster() *Cluster {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.http.Certificate().Raw})
	c, err := OpenCluster(&rest.Config{Host: k.http.URL, BearerToken: "person", TLSClientConfig: rest.TLSClientConfig{CAData: ca}}, "--context", "lab")
	if err != nil {
		k.t.Fatal(err)
	}
	return c
}

func (k *kubeAPI) put(key string, o map[string]any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.store(key, o)
}

func (k *kubeAPI) store(key string, o map[string]any) map[string]any {
	k.version++
	meta, _ := o["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
		o["metadata"] = meta
	}
	parts := strings.Split(key, "/")
	meta["name"] = parts[len(parts)-1]
	if len(parts) == 3 {
		meta["namespace"] = parts[1]
	}
	if meta["uid"] == nil {
		meta["uid"] = fmt.Sprintf("uid-%d", k.version)
	}
	meta["resourceVersion"] = strconv.Itoa(k.version)
	o["apiVersion"], o["kind"] = "v1", map[bool]string{true: "ServiceAccount", false: "Namespace"}[strings.HasPrefix(key, "serviceaccounts/")]
	k.objects[key] = o
	return o
}

// annotations are those of an object; nil if it is not there.
func (k *kubeAPI) annotations(key string) map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := k.objects[key]
	if o == nil {
		return nil
	}
	out := map[string]string{}
	if as, ok := o["metadata"].(map[string]any)["annotations"].(map[string]any); ok {
		for name, v := range as {
			out[name], _ = v.(string)
		}
	}
	return out
}

func (k *kubeAPI) written() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.writes)
}

func (k *kubeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	say := func(code int, o any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(o)
	}
	refuse := func(code int, reason string) {
		say(code, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "refused: " + reason})
	}
	if code := k.deny[r.Method+" "+r.URL.Path]; code != 0 {
		refuse(code, map[int]string{403: "Forbidden", 409: "Conflict"}[code])
		return
	}
	if r.Header.Get("Authorization") != "Bearer person" {
		refuse(401, "Unauthorized")
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		if k.moved != "" {
			http.Redirect(w, r, k.moved, http.StatusFound)
			return
		}
		say(200, map[string]any{"issuer": k.issuer})
		return
	case "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations":
		say(200, map[string]any{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfigurationList", "metadata": map[string]any{}, "items": []any{}})
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "/")
	body, _ := io.ReadAll(r.Body)
	var in map[string]any
	_ = json.Unmarshal(body, &in)
	if len(parts) == 5 && parts[4] == "token" {
		spec := in["spec"].(map[string]any)
		if k.objects["serviceaccounts/"+parts[1]+"/"+parts[3]] == nil {
			refuse(404, "NotFound")
			return
		}
		in["status"] = map[string]any{"token": k.token(parts[1], parts[3], spec["audiences"].([]any)[0].(string))}
		say(201, in)
		return
	}
	key := strings.Join(parts, "/") // namespaces[/N]
	if len(parts) > 2 {
		key = strings.Join(slices.Concat([]string{parts[2], parts[1]}, parts[3:]), "/")
	}
	have := k.objects[key]
	if r.Method != http.MethodGet {
		k.writes = append(k.writes, r.Method+" "+r.URL.Path)
		if m := r.URL.Query().Get("fieldManager"); m != "podkey" && r.Method != http.MethodDelete {
			k.t.Errorf("%s %s has field manager %q", r.Method, r.URL.Path, m)
		}
	}
	meta, _ := in["metadata"].(map[string]any)
	switch r.Method {
	case http.MethodPost:
		key += "/" + fmt.Sprint(meta["name"])
		if k.objects[key] != nil {
			refuse(409, "AlreadyExists")
			return
		}
		if len(parts) > 2 && k.objects["namespaces/"+parts[1]] == nil {
			refuse(404, "NotFound")
			return
		}
		say(201, k.store(key, in))
		return
	}
	if have == nil {
		refuse(404, "NotFound")
		return
	}
	version := have["metadata"].(map[string]any)["resourceVersion"]
	switch r.Method {
	case http.MethodGet:
		say(200, have)
	case http.MethodPatch:
		if meta["resourceVersion"] != version {
			refuse(409, "Conflict")
			return
		}
		old, _ := json.Marshal(have)
		merged, err := jsonpatch.MergePatch(old, body)
		if err != nil {
			k.t.Error(err)
		}
		var o map[string]any
		_ = json.Unmarshal(merged, &o)
		say(200, k.store(key, o))
	case http.MethodDelete:
		pre, _ := in["preconditions"].(map[string]any)
		if pre["resourceVersion"] != version || pre["uid"] != have["metadata"].(map[string]any)["uid"] {
			refuse(409, "Conflict")
			return
		}
		delete(k.objects, key)
		say(200, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	}
}

// rig is a Podkey server with a cluster.
type rig struct {
	*podkeytest.Podkey
	t     testing.TB
	cloud *Cloud
	kube  *kubeAPI
	sent  *recorder
}

// recorder notes what is written to the server.
type recorder struct {
	next   azcoreTransporter
	mu     sync.Mutex
	writes []string
}

type azcoreTransporter interface {
	Do(*http.Request) (*http.Response, error)
}

func (r *recorder) Do(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet && !strings.HasSuffix(req.URL.Path, "/token") {
		r.mu.Lock()
		r.writes = append(r.writes, req.Method+" "+req.URL.Path)
		r.mu.Unlock()
	}
	return r.next.Do(req)
}

func (r *recorder) written() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.writes)
}

func newRig(t testing.TB, declare string) *rig {
	t.Helper()
	p := podkeytest.Start(t, podkeytest.Options{Declare: "resourceGroups: [{name: shop, location: westeurope}]\n" + declare})
	c, err := client.Open(p.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	sent := &recorder{next: c.HTTP}
	cloud := NewCloud(CloudOptions{
		TenantID: p.TenantID, SubscriptionID: p.SubscriptionID,
		Management: c.Operator.Endpoints.Management, Graph: c.Operator.Endpoints.Graph, Login: c.Operator.Endpoints.Login,
		Credential: operatorCredential{c}, Transport: sent, Podkey: true,
	})
	return &rig{Podkey: p, t: t, cloud: cloud, kube: newKubeAPI(t, p), sent: sent}
}

// sdk is the operator's credential and options for the real SDK, under
// Azure's names.
func (r *rig) sdk() (azcore.TokenCredential, *arm.ClientOptions) {
	r.t.Helper()
	o := azcore.ClientOptions{Transport: r.Client}
	cred, err := azidentity.NewClientSecretCredential(r.TenantID, r.ClientID, r.ClientSecret, &azidentity.ClientSecretCredentialOptions{ClientOptions: o})
	if err != nil {
		r.t.Fatal(err)
	}
	return cred, &arm.ClientOptions{ClientOptions: o}
}

func (r *rig) connection(req Request) *Connection {
	return &Connection{
		Cloud: r.cloud, Cluster: r.kube.cluster(), Request: req,
		Wait: func(context.Context, time.Duration) error { r.t.Error("nothing is to be waited for"); return nil },
	}
}

// shopRequest connects shop/web with the identity web and the vault
// connect-kv, all of which may be made.
func shopRequest() Request {
	return Request{Namespace: "shop", Account: "web", Identity: "web", Group: "shop", Vault: "connect-kv", Want: Permissions{Secrets: []string{"get", "list"}}, Create: true}
}

// plan plans, and must succeed.
func (r *rig) plan(req Request) *Plan {
	r.t.Helper()
	c := r.connection(req)
	p, err := c.Plan(c.Survey(r.t.Context()))
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// connect plans and does, and returns the outcomes as "phase outcome".
func (r *rig) connect(req Request) (*Plan, []string) {
	r.t.Helper()
	p := r.plan(req)
	return p, r.do(p)
}

func (r *rig) do(p *Plan) []string {
	r.t.Helper()
	var out []string
	err := p.Do(r.t.Context(), func(s *Step, _ time.Duration) { out = append(out, s.Phase+" "+s.Outcome) })
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// refused plans, and must fail with texts in the error.
func (r *rig) refused(req Request, texts ...string) {
	r.t.Helper()
	c := r.connection(req)
	_, err := c.Plan(c.Survey(r.t.Context()))
	if err == nil {
		r.t.Fatal("the plan was made")
	}
	said := err.Error()
	if h, ok := err.(interface{ Hint() string }); ok {
		said += "\n" + h.Hint()
	}
	for _, s := range texts {
		if !strings.Contains(said, s) {
			r.t.Errorf("%q does not say %q", said, s)
		}
	}
}

func (r *rig) disconnect(req Request, clear bool) []string {
	r.t.Helper()
	c := r.connection(req)
	d, err := c.SurveyDisconnect(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	d.Clear = clear
	p, err := c.PlanDisconnect(d)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.do(p)
}

// audited counts the audit lines of operations that change something.
func (r *rig) audited() (changes int) {
	r.t.Helper()
	f, err := os.Open(filepath.Join(r.DataDir, "audit.jsonl"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var line struct {
			Operation string `json:"operationName"`
		}
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			r.t.Fatal(err)
		}
		if strings.HasSuffix(line.Operation, "/write") || strings.HasSuffix(line.Operation, "/delete") {
			changes++
		}
	}
	return changes
}

func want[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}
