//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestManyPodsAtOnce scales a Deployment to 200 pods, which no node can take,
// so that nothing but their admission is measured.
func TestManyPodsAtOnce(t *testing.T) {
	const many = 200
	l := w.workload(t, "crowd", setup{})
	w.ready(t, nil)
	counted := func() (mutated, cpu float64) {
		for _, p := range w.replicas(t) {
			m := p.metrics(t)
			mutated += m[`podkey_webhook_reviews_total{path="/mutate-v1-pod",result="mutated"}`]
			cpu += m["process_cpu_seconds_total"]
		}
		return mutated, cpu
	}
	mutatedBefore, cpuBefore := counted()
	w.apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: crowd, namespace: crowd}
spec:
  replicas: %d
  selector: {matchLabels: {app: crowd}}
  template:
    metadata: {labels: {app: crowd, azure.workload.identity/use: "true"}}
    spec:
      serviceAccountName: app
      nodeSelector: {nowhere: "true"}
      containers: [{name: app, image: x}]
`, many))
	start := time.Now()
	var all []pod
	eventually(t, "all pods", func() (bool, string) {
		all = w.pods(t, l.ns, "")
		return len(all) == many, fmt.Sprintf("%d pods", len(all))
	})
	took := time.Since(start)
	for _, p := range all {
		if err := p.once(l.clientID); err != nil {
			t.Errorf("%s: %v", p.Metadata.Name, err)
		}
	}
	mutated, cpu := counted()
	mutated, cpu = mutated-mutatedBefore, cpu-cpuBefore
	if mutated != many {
		t.Errorf("the replicas have mutated %v pods, want %d", mutated, many)
	}
	// How long they took in this namespace. The API server asks twice for each
	// pod: it adds a mount to the container that the webhook has added.
	const histogram, label = "azwi_mutation_request", `{namespace="crowd",service_name="webhook"`
	count, buckets := 0.0, map[float64]float64{}
	for _, p := range w.replicas(t) {
		for name, v := range p.metrics(t) {
			if bound, ok := strings.CutPrefix(name, histogram+"_bucket"+label+`,le="`); ok {
				le, err := strconv.ParseFloat(strings.TrimSuffix(bound, `"}`), 64)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				buckets[le] += v
			}
			if name == histogram+"_count"+label+"}" {
				count += v
			}
		}
	}
	if count < many {
		t.Errorf("the replicas have measured %v reviews, want %d or more", count, many)
	}
	quantile := func(q float64) time.Duration { // its upper bound
		for _, le := range slices.Sorted(maps.Keys(buckets)) {
			if buckets[le] >= q*count {
				return time.Duration(le * float64(time.Second))
			}
		}
		return 0
	}
	half, p99 := quantile(0.5), quantile(0.99)
	each := time.Duration(cpu / many * float64(time.Second))
	t.Logf("%d pods in %v; the webhook answers half of %v reviews within %v and 99%% within %v; %v of processor time for each pod",
		many, took.Round(time.Millisecond), count, half, p99, each)
	// The budget of 1 ms for 99% is the benchmark's. Here a whole cluster is
	// busy with these pods on the same few cores, and what is beyond half of
	// them shows for how long the webhook had to wait for one.
	const most = 5 * time.Millisecond
	if half > most || each > most {
		t.Errorf("half of the reviews take up to %v, each pod %v of processor time, want at most %v", half, each, most)
	}
}

// strangePod has fields that no version of Kubernetes knows, at every level
// that the webhook reads or adds to, and numbers that a float64 would spoil.
const strangePod = `{
	"apiVersion": "v1", "kind": "Pod", "future": {"deep": [1, {"x": null}]},
	"metadata": {"name": "strange", "namespace": %q, "labels": {"azure.workload.identity/use": "true"}, "future": 9007199254740993},
	"spec": {
		"serviceAccountName": "app", "future": "<&>\u2028", "futures": [],
		"volumes": [{"name": "v", "future": {"a": 1e400}}],
		"initContainers": [{"name": "i", "image": "x", "restartPolicy": "Always", "future": 1.10}],
		"containers": [
			{"name": "a", "image": "x", "future": {"": ""}, "env": [{"name": "A", "value": "1", "future": true}], "volumeMounts": [{"name": "v", "mountPath": "/v", "future": -0}]},
			{"name": "b", "image": "x", "envFrom": [{"future": {}}]}
		],
		"ephemeralContainers": [{"name": "e", "image": "x", "future": 0}]
	},
	"status": {"future": 18446744073709551616}
}`

// TestUnknownFieldsSurvive is the webhook in a cluster that is newer than it:
// what it does not know stays as it is. A client takes the place of the API
// server, which would remove what it does not know itself.
func TestUnknownFieldsSurvive(t *testing.T) {
	t.Parallel()
	l := w.workload(t, "strange-fields", setup{})
	object := fmt.Sprintf(strangePod, l.ns)
	review := fmt.Appendf(nil, `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "future": 1, "request": {
		"uid": "0b4cbd52-4e4b-4c3c-8e0e-2f4b1a1f5a01", "kind": {"group": "", "version": "v1", "kind": "Pod"},
		"resource": {"group": "", "version": "v1", "resource": "pods"}, "future": [], "name": "strange", "namespace": %q,
		"operation": "CREATE", "userInfo": {"username": "admin"}, "dryRun": true, "object": %s}}`, l.ns, object)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: w.trusted(t), DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Post("https://"+net.JoinHostPort(w.replicas(t)[0].Status.PodIP, "9443")+"/mutate-v1-pod", "application/json", bytes.NewReader(review))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Response struct {
			Allowed bool
			Patch   []byte
		}
	}
	if err := json.Unmarshal(b, &answer); err != nil || !answer.Response.Allowed || answer.Response.Patch == nil {
		t.Fatalf("HTTP %d, %v: %s", resp.StatusCode, err, b)
	}
	before, after := decode(t, object), decode(t, object)
	var ops []operation
	if err := json.Unmarshal(answer.Response.Patch, &ops); err != nil {
		t.Fatal(err)
	}
	for _, o := range ops {
		if after, err = o.apply(after); err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
	}
	if diff := cmp.Diff(before, shared(before, after)); diff != "" {
		t.Errorf("before (-) and after (+):\n%s", diff)
	}
	if cmp.Equal(before, after) {
		t.Error("the patch does nothing")
	}
}

// TestNewFieldsSurvive is the same with the real API server, and the fields of
// its pods that are younger than the types of the webhook that ours takes the
// place of. A pod without the label shows what the API server itself makes of
// them.
func TestNewFieldsSurvive(t *testing.T) {
	t.Parallel()
	l := w.workload(t, "new-fields", setup{})
	made := func(labels string) any {
		status, b, err := w.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/"+l.ns+"/pods?dryRun=All&fieldValidation=Strict", fmt.Appendf(nil, `{
			"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "new", "labels": %s},
			"spec": {
				"serviceAccountName": "app", "hostnameOverride": "another-name", "restartPolicy": "Never",
				"resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
				"containers": [{"name": "app", "image": "x", "restartPolicy": "Never",
					"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]
			}}`, labels))
		if err != nil || status != http.StatusCreated {
			t.Fatalf("HTTP %d, %v: %s", status, err, b)
		}
		return decode(t, string(b)).(map[string]any)["spec"]
	}
	bare, ours := made(`{}`), made(`{"azure.workload.identity/use": "true"}`)
	for _, field := range []string{"hostnameOverride", "restartPolicyRules", "resources"} {
		if !strings.Contains(fmt.Sprint(bare), field+":") {
			t.Errorf("the API server does not keep %s itself, so this test shows nothing about it", field)
		}
	}
	unrandom(bare)
	unrandom(ours)
	if diff := cmp.Diff(bare, shared(bare, ours)); diff != "" {
		t.Errorf("without the label (-) and with it (+):\n%s", diff)
	}
	if cmp.Equal(bare, ours) {
		t.Error("the webhook has done nothing")
	}
}

// unrandom names the API server's own token volume as if it were no random
// name.
func unrandom(spec any) {
	s := spec.(map[string]any)
	for _, list := range []any{s["volumes"], s["containers"].([]any)[0].(map[string]any)["volumeMounts"]} {
		for _, v := range list.([]any) {
			if v := v.(map[string]any); strings.HasPrefix(v["name"].(string), "kube-api-access-") {
				v["name"] = "kube-api-access"
			}
		}
	}
}

// decode reads JSON, numbers as they are written.
func decode(t *testing.T, text string) (v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// operation is one of a JSON Patch. The webhook's only add.
type operation struct {
	Op, Path string
	Value    json.RawMessage
}

func (o operation) apply(doc any) (any, error) {
	if o.Op != "add" {
		return nil, fmt.Errorf("the operation is not add")
	}
	d := json.NewDecoder(bytes.NewReader(o.Value))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return add(doc, strings.Split(o.Path, "/")[1:], v)
}

// add adds at a path as RFC 6902 says, and never over what is there.
func add(doc any, path []string, v any) (any, error) {
	name := strings.NewReplacer("~1", "/", "~0", "~").Replace(path[0])
	switch doc := doc.(type) {
	case map[string]any:
		old, ok := doc[name]
		if len(path) > 1 {
			var err error
			v, err = add(old, path[1:], v)
			doc[name] = v
			return doc, err
		}
		if ok {
			return nil, fmt.Errorf("%s is there", name)
		}
		doc[name] = v
		return doc, nil
	case []any:
		if name == "-" && len(path) == 1 {
			return append(doc, v), nil
		}
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || i > len(doc) || i == len(doc) && len(path) > 1 {
			return nil, fmt.Errorf("there is no element %s", name)
		}
		if len(path) == 1 {
			return slices.Insert(doc, i, v), nil
		}
		doc[i], err = add(doc[i], path[1:], v)
		return doc, err
	}
	return nil, fmt.Errorf("there is nothing to add %s to", name)
}

// shared is what two documents have in common, seen from the first: of objects
// its members, of lists its elements, which are found by their name wherever
// they have moved to.
func shared(first, second any) any {
	switch a := first.(type) {
	case map[string]any:
		b, ok := second.(map[string]any)
		if !ok {
			return second
		}
		out := map[string]any{}
		for name, v := range a {
			if w, ok := b[name]; ok {
				out[name] = shared(v, w)
			}
		}
		return out
	case []any:
		b, ok := second.([]any)
		if !ok {
			return second
		}
		out := []any{}
		for i, v := range a {
			j := i
			if m, ok := v.(map[string]any); ok && m["name"] != nil {
				j = slices.IndexFunc(b, func(w any) bool { w2, ok := w.(map[string]any); return ok && w2["name"] == m["name"] })
			}
			if j >= 0 && j < len(b) {
				out = append(out, shared(v, b[j]))
			}
		}
		return out
	}
	return second
}
