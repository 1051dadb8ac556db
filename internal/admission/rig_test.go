package admission_test

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"github.com/podkey/podkey/internal/admission"
)

const (
	clientID = "11111111-2222-3333-4444-555555555555"
	tenantID = "99999999-8888-7777-6666-555555555555"
	keys     = "azure.workload.identity/"
)

type (
	object = map[string]any
	list   = []any
)

// accounts are the service accounts of a namespace, by name: annotations.
type accounts map[string]map[string]string

func (a accounts) lookup(_ context.Context, namespace, name string) (admission.ServiceAccount, error) {
	annotations, ok := a[name]
	if !ok {
		return admission.ServiceAccount{}, fmt.Errorf("serviceaccounts %q not found: %w", name, admission.ErrNotFound)
	}
	return admission.ServiceAccount{Name: name, Namespace: namespace, Annotations: annotations}, nil
}

var known = accounts{"sa": {keys + "client-id": clientID}, "default": nil, "bare": {}}

func rules(t testing.TB, c admission.Config) *admission.Rules {
	t.Helper()
	if c.TenantID == "" {
		c.TenantID = tenantID
	}
	if c.Images.Proxy == "" {
		c.Images.Proxy = "podkey:test"
	}
	r, err := admission.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// parse reads a value that a test has written as JSON.
func parse(t testing.TB, s string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return v
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pod is a pod of the service account sa, with these annotations and this
// specification, given as JSON members.
func pod(t testing.TB, annotations map[string]string, spec string) object {
	t.Helper()
	s := parse(t, "{"+spec+"}").(object)
	if _, ok := s["serviceAccountName"]; !ok {
		s["serviceAccountName"] = "sa"
	}
	meta := object{"name": "web", "labels": object{keys + "use": "true"}}
	if annotations != nil {
		meta["annotations"] = annotations
	}
	return object{"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": s}
}

// review wraps an object as the API server does.
func review(t testing.TB, obj any) []byte {
	t.Helper()
	return encode(t, object{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
		"request": object{
			"uid": "u-1", "kind": object{"group": "", "version": "v1", "kind": "Pod"}, "namespace": "shop", "operation": "CREATE",
			"userInfo": object{"username": "someone"}, "object": obj, "oldObject": nil, "dryRun": false,
		},
	})
}

// answer is a response as the API server reads it.
type answer struct {
	APIVersion, Kind string
	Response         struct {
		UID       string
		Allowed   bool
		PatchType *string
		Patch     []byte
		Warnings  []string
		Status    struct {
			Code            int
			Message, Reason string
		}
	}
}

func decode(t testing.TB, r admission.Response) answer {
	t.Helper()
	var a answer
	if err := json.Unmarshal(r.Body, &a); err != nil {
		t.Fatalf("%q: %v", r.Body, err)
	}
	if a.Kind != "AdmissionReview" || (len(a.Response.Patch) > 0) != (a.Response.PatchType != nil) {
		t.Fatalf("answer: %s", r.Body)
	}
	return a
}

// apply applies the patch of an answer, which may only add, or replace a volume
// or a mount.
func apply(t testing.TB, obj any, patch []byte) object {
	t.Helper()
	text := encode(t, obj)
	if len(patch) > 0 {
		var ops []struct{ Op, Path string }
		if err := json.Unmarshal(patch, &ops); err != nil {
			t.Fatalf("%s: %v", patch, err)
		}
		for _, o := range ops {
			if o.Op != "add" && (o.Op != "replace" || !strings.Contains(o.Path, "/volumes/") && !strings.Contains(o.Path, "/volumeMounts/")) {
				t.Fatalf("operation %s of %s", o.Op, o.Path)
			}
		}
		p, err := jsonpatch.DecodePatch(patch)
		if err != nil {
			t.Fatal(err)
		}
		if text, err = p.Apply(text); err != nil {
			t.Fatalf("%v\n%s", err, patch)
		}
	}
	return parse(t, string(text)).(object)
}

// mutate returns the pod as it is after the webhook, and checks that a second
// call changes nothing, not even after the pod was renamed and the API server
// has filled in its defaults.
func mutate(t testing.TB, r *admission.Rules, obj object) object {
	t.Helper()
	res := r.Mutate(context.Background(), review(t, obj), known.lookup, nil)
	a := decode(t, res)
	if !a.Response.Allowed || a.Response.UID != "u-1" || len(a.Response.Warnings) > 0 {
		t.Fatalf("answer: %s", res.Body)
	}
	out := apply(t, obj, a.Response.Patch)
	fixed(t, r, out)
	return out
}

func fixed(t testing.TB, r *admission.Rules, obj object) {
	t.Helper()
	again := parse(t, string(encode(t, obj))).(object)
	for _, v := range items(again["spec"], "volumes") {
		if p, ok := v.(object)["projected"].(object); ok && p["defaultMode"] == nil {
			p["defaultMode"] = 420
		}
	}
	for _, name := range []string{"", "renamed-by-another-webhook"} {
		if name != "" {
			again["metadata"].(object)["name"] = name
		}
		res := r.Mutate(context.Background(), review(t, again), known.lookup, nil)
		if a := decode(t, res); !a.Response.Allowed || a.Response.Patch != nil || res.Outcome != admission.Unchanged {
			t.Fatalf("the second pass: %s\n%s", res.Body, a.Response.Patch)
		}
	}
}

func refuse(t testing.TB, r *admission.Rules, obj any, reason admission.Reason, words ...string) {
	t.Helper()
	res := r.Mutate(context.Background(), review(t, obj), known.lookup, nil)
	a := decode(t, res)
	if a.Response.Allowed || a.Response.Status.Code != 400 || a.Response.Patch != nil || res.Outcome != admission.Denied || res.Reason != reason ||
		a.Response.Status.Message != res.Message {
		t.Fatalf("answer: %s, reason %s", res.Body, res.Reason)
	}
	for _, w := range words {
		if !strings.Contains(res.Message, w) {
			t.Errorf("the refusal lacks %q: %s", w, res.Message)
		}
	}
}

// items is an array in an object, by the object's member.
func items(obj any, key string) list {
	l, _ := obj.(object)[key].(list)
	return l
}

func spec(p object) object { return p["spec"].(object) }

// named finds the element of an array by its name.
func named(t testing.TB, l list, name string) object {
	t.Helper()
	for _, e := range l {
		if e.(object)["name"] == name {
			return e.(object)
		}
	}
	t.Fatalf("nothing is named %s in %v", name, l)
	return nil
}

func names(l list) []string {
	out := []string{}
	for _, e := range l {
		out = append(out, fmt.Sprint(e.(object)["name"]))
	}
	return out
}

// environ is a container's environment as NAME=value, in order.
func environ(c any) []string {
	out := []string{}
	for _, e := range items(c, "env") {
		v := e.(object)
		if f, ok := v["valueFrom"].(object); ok {
			out = append(out, fmt.Sprintf("%s=<%v>", v["name"], f["fieldRef"].(object)["fieldPath"]))
			continue
		}
		out = append(out, fmt.Sprintf("%s=%v", v["name"], v["value"]))
	}
	return out
}

// mounts are a container's mounts as NAME:PATH, with :ro.
func mounts(c any) []string {
	out := []string{}
	for _, e := range items(c, "volumeMounts") {
		m := e.(object)
		s := fmt.Sprintf("%v:%v", m["name"], m["mountPath"])
		if m["readOnly"] == true {
			s += ":ro"
		}
		out = append(out, s)
	}
	return out
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}
