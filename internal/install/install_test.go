package install_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/deploy/chart"
	"github.com/podkey/podkey/internal/install"
	"github.com/podkey/podkey/internal/install/installtest"
)

const (
	namespace  = "/api/v1/namespaces/podkey-system"
	deployment = "/apis/apps/v1/namespaces/podkey-system/deployments/podkey-webhook"
	mutating   = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/podkey-webhook"
	validating = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/podkey-webhook"
	secret     = namespace + "/secrets/podkey-webhook-cert"
)

func render(t testing.TB, values map[string]any) []chart.Object {
	t.Helper()
	a := install.Authority{TenantID: "8e8f1d70-1ac5-4b0e-9c0e-6d1f2f5b7a01", Login: "https://login.podkey.example", CA: []byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")}
	objects, err := chart.Render(chart.Release{Values: chart.Overlay(a.Values(), values)})
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// journal collects reports.
type journal struct{ lines []string }

func (j *journal) options() install.Options {
	return install.Options{Poll: time.Millisecond, Patience: time.Millisecond, Timeout: 30 * time.Second, Report: func(object, what string) {
		j.lines = append(j.lines, object+": "+what)
	}}
}

func (j *journal) String() string { return strings.Join(j.lines, "\n") }

func apply(t testing.TB, c *installtest.Cluster, objects []chart.Object) (string, error) {
	t.Helper()
	var j journal
	err := install.Apply(t.Context(), c.Config(), objects, j.options())
	return j.String(), err
}

func remove(t testing.TB, c *installtest.Cluster) (string, error) {
	t.Helper()
	var j journal
	err := install.Remove(t.Context(), c.Config(), chart.Release{}, j.options())
	return j.String(), err
}

func reason(err error) install.Reason {
	if e, ok := errors.AsType[*install.Error](err); ok {
		return e.Reason
	}
	return -1
}

func TestApplyTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	c := installtest.New(t)
	objects := render(t, nil)
	said, err := apply(t, c, objects)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(said, "Namespace podkey-system: created\n") || strings.Count(said, ": created") != len(objects) {
		t.Errorf("said:\n%s", said)
	}
	for _, part := range []string{"Deployment podkey-system/podkey-webhook: available", "MutatingWebhookConfiguration podkey-webhook: has its CA bundle", "ValidatingWebhookConfiguration podkey-webhook: has its CA bundle"} {
		if !strings.Contains(said, part) {
			t.Errorf("no %q in:\n%s", part, said)
		}
	}
	var kinds []string
	for _, call := range c.Calls() {
		kinds = append(kinds, call[strings.LastIndexByte(call[:strings.LastIndexByte(call, '/')], '/')+1:strings.LastIndexByte(call, '/')])
	}
	if kinds[0] != "namespaces" || kinds[len(kinds)-1] != "validatingwebhookconfigurations" || kinds[len(kinds)-2] != "mutatingwebhookconfigurations" {
		t.Errorf("order: %v", kinds)
	}
	if said, err = apply(t, c, objects); err != nil || strings.Count(said, ": unchanged") != len(objects)-1 || !strings.Contains(said, "Namespace podkey-system: is there") {
		t.Errorf("the second time: %v\n%s", err, said)
	}
	// What somebody edited by hand is made good, and what others own stays.
	c.Edit(deployment, func(o installtest.Object) {
		o["spec"].(map[string]any)["replicas"] = 0.0
		o["metadata"].(map[string]any)["annotations"] = map[string]any{"theirs": "stays"}
	})
	if said, err = apply(t, c, objects); err != nil || !strings.Contains(said, "podkey-webhook: changed") || strings.Count(said, ": changed") != 1 {
		t.Errorf("after an edit: %v\n%s", err, said)
	}
	d := c.Get(deployment)
	if d["spec"].(map[string]any)["replicas"] != 2.0 || d["metadata"].(map[string]any)["annotations"].(map[string]any)["theirs"] != "stays" {
		t.Errorf("%v", d)
	}
}

func TestRemoveTakesWhatApplyBrought(t *testing.T) {
	t.Parallel()
	c := installtest.New(t)
	if _, err := apply(t, c, render(t, nil)); err != nil {
		t.Fatal(err)
	}
	// What a cluster puts into each namespace, and the webhook's own.
	c.Put(namespace+"/configmaps/kube-root-ca.crt", installtest.Object{"metadata": map[string]any{"name": "kube-root-ca.crt"}})
	c.Put(namespace+"/serviceaccounts/default", installtest.Object{"metadata": map[string]any{"name": "default"}})
	c.Put(namespace+"/events/e", installtest.Object{"metadata": map[string]any{"name": "e"}})
	c.Put(secret, installtest.Object{"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": map[string]any{"name": "podkey-webhook-cert", "namespace": "podkey-system"}})
	before := len(c.Calls())
	said, err := remove(t, c)
	if err != nil {
		t.Fatal(err)
	}
	calls := c.Calls()[before:]
	if calls[0] != "DELETE "+validating || calls[1] != "DELETE "+mutating || calls[len(calls)-1] != "DELETE "+namespace {
		t.Errorf("order:\n%s", strings.Join(calls, "\n"))
	}
	if left := c.Paths(); len(left) > 0 {
		t.Errorf("left: %v\n%s", left, said)
	}
	if said, err := remove(t, c); err != nil || said != "" {
		t.Errorf("the second time: %v %s", err, said)
	}
}

// TestNamespacesOfOthersStay: one that was there before, and one of ours that
// somebody moved into.
func TestNamespacesOfOthersStay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set   func(c *installtest.Cluster) // after installing
		first bool                         // the namespace is there before
		says  string
	}{
		"made by somebody else": {func(*installtest.Cluster) {}, true, "Podkey did not make it"},
		"with a secret in it": {func(c *installtest.Cluster) {
			c.Put(namespace+"/secrets/mine", installtest.Object{"metadata": map[string]any{"name": "mine"}})
		}, false, "secrets mine is in it"},
		"with a custom resource in it": {func(c *installtest.Cluster) {
			c.Put("/apis/shop.example/v1/namespaces/podkey-system/orders/o", installtest.Object{"metadata": map[string]any{"name": "o"}})
		}, false, "orders.shop.example o is in it"},
		"on a server that does not list": {func(c *installtest.Cluster) { c.Old = true }, false, "cannot be told"},
		"with lists that may not be read": {func(c *installtest.Cluster) {
			c.Before = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/orders") {
					return false
				}
				installtest.Refuse(w, 403, "Forbidden", "orders is forbidden")
				return true
			}
		}, false, "orders is forbidden"},
		"with a group that does not answer": {func(c *installtest.Cluster) {
			c.Before = answers("/apis", `{"kind":"APIGroupDiscoveryList","items":[{"metadata":{"name":"metrics.k8s.io"},"versions":[{"version":"v1","freshness":"Stale"}]}]}`)
		}, false, "the API group metrics.k8s.io does not answer"},
		"with more than one page": {func(c *installtest.Cluster) {
			c.Before = answers("/apis/shop.example/v1/namespaces/podkey-system/orders", `{"apiVersion":"v1","kind":"List","metadata":{"continue":"more"},"items":[]}`)
		}, false, "many orders.shop.example are in it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := installtest.New(t)
			if c.first {
				k.Put(namespace, installtest.Object{"kind": "Namespace", "metadata": map[string]any{"name": "podkey-system"}})
			}
			if _, err := apply(t, k, render(t, nil)); err != nil {
				t.Fatal(err)
			}
			c.set(k)
			said, err := remove(t, k)
			if err != nil || !strings.Contains(said, "Namespace podkey-system: left alone: ") || !strings.Contains(said, c.says) {
				t.Errorf("%v\n%s", err, said)
			}
			if k.Get(namespace) == nil || k.Get(deployment) != nil || k.Get(mutating) != nil {
				t.Errorf("there is: %v", k.Paths())
			}
		})
	}
}

// answers stands in for one path of an API server.
func answers(path, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != path {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
		return true
	}
}

// Nothing is in a namespace by a kind that has gone since it was listed, nor by
// events, of which there may be many pages.
func TestWhatIsInNobodysWay(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"a kind that has gone": func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/orders") {
				installtest.Refuse(w, 404, "NotFound", "the server could not find the requested resource")
				return true
			}
			return false
		},
		"many events": answers(namespace+"/events", `{"apiVersion":"v1","kind":"List","metadata":{"continue":"more"},"items":[{"apiVersion":"v1","kind":"Event","metadata":{"name":"e"}}]}`),
	} {
		k := installtest.New(t)
		if _, err := apply(t, k, render(t, nil)); err != nil {
			t.Fatal(err)
		}
		k.Before = before
		if said, err := remove(t, k); err != nil || k.Get(namespace) != nil {
			t.Errorf("%s: %v\n%s", name, err, said)
		}
	}
}

func TestObjectsOfOthersAreNotTaken(t *testing.T) {
	t.Parallel()
	theirs := installtest.Object{"kind": "Service", "metadata": map[string]any{"name": "podkey-webhook", "namespace": "podkey-system"}, "spec": map[string]any{"a": "b"}}
	const path = namespace + "/services/podkey-webhook"

	c := installtest.New(t)
	c.Put(path, theirs)
	before := c.Get(path)
	_, err := apply(t, c, render(t, nil))
	if reason(err) != install.Taken || !strings.Contains(err.Error(), "Service podkey-system/podkey-webhook: is there already and not Podkey's") {
		t.Errorf("err = %v", err)
	}
	if d := cmp.Diff(before, c.Get(path)); d != "" {
		t.Errorf("it was changed: %s", d)
	}
	if c.Get(mutating) != nil {
		t.Error("what comes after was installed")
	}
	if _, err := remove(t, c); err != nil || c.Get(path) == nil {
		t.Errorf("removed: %v", err)
	}

	// One that comes between our look and our change.
	c = installtest.New(t)
	c.Before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == path && r.Method == http.MethodPatch {
			c.Put(path, theirs)
		}
		return false
	}
	if _, err := apply(t, c, render(t, nil)); reason(err) != install.Refused || !strings.Contains(err.Error(), "conflict") || c.Get(path)["spec"].(map[string]any)["a"] != "b" {
		t.Errorf("err = %v, there is %v", err, c.Get(path))
	}

	// Another instance's, and Helm's.
	c = installtest.New(t)
	if _, err := apply(t, c, render(t, nil)); err != nil {
		t.Fatal(err)
	}
	c.Edit(deployment, func(o installtest.Object) {
		o["metadata"].(map[string]any)["annotations"] = map[string]any{"meta.helm.sh/release-name": "vault"}
	})
	paths := c.Paths()
	if _, err := apply(t, c, render(t, nil)); reason(err) != install.Taken || !strings.Contains(err.Error(), `the Helm release "vault"`) {
		t.Errorf("apply: %v", err)
	}
	if _, err := remove(t, c); reason(err) != install.Taken || !strings.Contains(err.Error(), "helm uninstall") {
		t.Errorf("remove: %v", err)
	}
	if d := cmp.Diff(paths, c.Paths()); d != "" {
		t.Errorf("something of Helm's was removed: %s", d)
	}
	c.Edit(deployment, func(o installtest.Object) {
		m := o["metadata"].(map[string]any)
		delete(m, "annotations")
		m["labels"].(map[string]any)["app.kubernetes.io/instance"] = "other"
	})
	if _, err := remove(t, c); err != nil || c.Get(deployment) == nil || c.Get(mutating) != nil {
		t.Errorf("another instance's: %v, there is %v", err, c.Paths())
	}
}

func TestInstalledInAnotherNamespace(t *testing.T) {
	t.Parallel()
	c := installtest.New(t)
	objects, err := chart.Render(chart.Release{Namespace: "keys", Values: map[string]any{"tenantID": "8e8f1d70-1ac5-4b0e-9c0e-6d1f2f5b7a01"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := apply(t, c, objects); err != nil {
		t.Fatal(err)
	}
	n := len(c.Paths())
	if _, err := remove(t, c); reason(err) != install.Taken || !strings.Contains(err.Error(), `"keys"`) || len(c.Paths()) != n {
		t.Errorf("err = %v, %d objects of %d are left", err, len(c.Paths()), n)
	}
}

// TestACertificateFromElsewhereStays: the Secret is of another type than the
// webhook's own.
func TestACertificateFromElsewhereStays(t *testing.T) {
	t.Parallel()
	c := installtest.New(t)
	if _, err := apply(t, c, render(t, nil)); err != nil {
		t.Fatal(err)
	}
	c.Put(secret, installtest.Object{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": map[string]any{"name": "podkey-webhook-cert", "namespace": "podkey-system"}})
	if said, err := remove(t, c); err != nil || c.Get(secret) == nil || c.Get(namespace) == nil {
		t.Errorf("%v\n%s", err, said)
	}
}

func TestWhatThePodsSay(t *testing.T) {
	t.Parallel()
	c := installtest.New(t)
	c.Sick, c.SickMessage = "ImagePullBackOff", `Back-off pulling image "localhost/podkey:dev"`
	said, err := apply(t, c, render(t, nil))
	const why = `container webhook: ImagePullBackOff: Back-off pulling image "localhost/podkey:dev"`
	if reason(err) != install.NotReady || !strings.Contains(err.Error(), "Deployment podkey-system/podkey-webhook: does not start: "+why) {
		t.Errorf("err = %v", err)
	}
	if strings.Count(said, why) != 1 {
		t.Errorf("not said once:\n%s", said)
	}
	// It comes right while it is waited for.
	o := (&journal{}).options()
	o.Patience = time.Hour
	o.Report = func(_, what string) {
		if what == why {
			c.Heal()
		}
	}
	if err := install.Apply(t.Context(), c.Config(), render(t, nil), o); err != nil {
		t.Error(err)
	}
}

// TestToAndFro: what a container that never starts says is not always the
// same, and that must not start the clock anew.
func TestToAndFro(t *testing.T) {
	t.Parallel()
	pulling := func(reason string) installtest.Object {
		return installtest.Object{"name": "webhook", "state": map[string]any{"waiting": map[string]any{"reason": reason}}}
	}
	ended := map[string]any{"terminated": map[string]any{"exitCode": 1.0, "reason": "Error"}}
	for name, states := range map[string][2]installtest.Object{
		"no image": {pulling("ErrImagePull"), pulling("ImagePullBackOff")},
		"a crash": {
			{"name": "webhook", "ready": false, "state": map[string]any{"running": map[string]any{}}, "lastState": ended},
			{"name": "webhook", "ready": false, "state": map[string]any{"waiting": map[string]any{"reason": "CrashLoopBackOff"}}, "lastState": ended},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const pod = namespace + "/pods/podkey-webhook-1"
			c := installtest.New(t)
			c.Sick = "ErrImagePull"
			turn := 0
			c.Before = func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/pods") && c.Get(pod) != nil {
					turn++
					c.Edit(pod, func(o installtest.Object) {
						o["status"].(map[string]any)["containerStatuses"] = []any{states[turn%2]}
					})
				}
				return false
			}
			o := (&journal{}).options()
			o.Patience = 100 * time.Millisecond
			if err := install.Apply(t.Context(), c.Config(), render(t, nil), o); reason(err) != install.NotReady || !strings.Contains(err.Error(), "does not start: container webhook") {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestTimeIsLimited(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set  func(c *installtest.Cluster)
		says string
	}{
		"a pod that pulls for ever": {func(c *installtest.Cluster) { c.Sick, c.SickMessage = "ErrImagePull", "slow" }, "is not available after 3s: container webhook: ErrImagePull: slow"},
		"pods that say nothing":     {func(c *installtest.Cluster) { c.Sick = "ContainerCreating" }, "its pods have not said why"},
		"no CA bundle":              {func(c *installtest.Cluster) { c.NoCA = true }, "has no CA bundle"},
		"an object on its way out": {func(c *installtest.Cluster) {
			c.Put(namespace, installtest.Object{"kind": "Namespace", "metadata": map[string]any{"name": "podkey-system", "deletionTimestamp": "2026-11-22T00:00:00Z"}})
		}, "the time limit is 3s"},
		"a server that hangs": {func(c *installtest.Cluster) {
			c.Before = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
		}, "the time limit is 3s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := installtest.New(t)
			c.set(k)
			o := (&journal{}).options()
			o.Timeout, o.Patience = 3*time.Second, time.Hour // enough to get to what is waited for, on a busy machine
			err := install.Apply(t.Context(), k.Config(), render(t, nil), o)
			if reason(err) != install.NotReady || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%d %v", reason(err), err)
			}
		})
	}
}

// TestAStoppedCallerIsToldSo: the caller's own end is not the cluster's fault.
func TestAStoppedCallerIsToldSo(t *testing.T) {
	t.Parallel()
	c := installtest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	c.Before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != deployment || r.Method != http.MethodGet {
			return false
		}
		cancel()
		<-r.Context().Done()
		return true
	}
	err := install.Apply(ctx, c.Config(), render(t, nil), (&journal{}).options())
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

// TestErrorsQuoteKubernetesAlone: what a server that is none answers is in no
// error, and nor is the credential.
func TestErrorsQuoteKubernetesAlone(t *testing.T) {
	t.Parallel()
	const private = "the-inner-page"
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter)
		reason install.Reason
		says   string
	}{
		"a page": {func(w http.ResponseWriter) { w.WriteHeader(502); fmt.Fprint(w, private) }, install.Unreachable, "not as Kubernetes does"},
		"another's error": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			fmt.Fprint(w, `{"message":"`+private+`"}`)
		}, install.Unreachable, "status 400"},
		"no object": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"password":"`+private+`"}`)
		}, install.Unreachable, "not answer as Kubernetes does"},
		"not allowed": {func(w http.ResponseWriter) {
			installtest.Refuse(w, 403, "Forbidden", `namespaces "podkey-system" is forbidden`)
		}, install.Denied, "is forbidden"},
		"not known": {func(w http.ResponseWriter) { installtest.Refuse(w, 401, "Unauthorized", "Unauthorized") }, install.Denied, "Unauthorized"},
		"not valid": {func(w http.ResponseWriter) { installtest.Refuse(w, 422, "Invalid", "spec: Required value") }, install.Refused, "Required value"},
		"long": {func(w http.ResponseWriter) {
			installtest.Refuse(w, 422, "Invalid", "\x1b[2J"+strings.Repeat("a", 10000))
		}, install.Refused, "aaaa"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := installtest.New(t)
			k.Before = func(w http.ResponseWriter, _ *http.Request) bool { c.answer(w); return true }
			for what, err := range map[string]error{
				"apply":  install.Apply(t.Context(), k.Config(), render(t, nil), (&journal{}).options()),
				"remove": install.Remove(t.Context(), k.Config(), chart.Release{}, (&journal{}).options()),
			} {
				if reason(err) != c.reason || !strings.Contains(fmt.Sprint(err), c.says) {
					t.Errorf("%s: %d %v", what, reason(err), err)
					continue
				}
				if s := err.Error(); strings.Contains(s, private) || strings.Contains(s, installtest.Token) || strings.ContainsAny(s, "\x1b") || len(s) > 1500 {
					t.Errorf("%s: %q", what, s)
				}
			}
		})
	}
}

// TestKindsAreTheCharts: every kind that the chart has a place for can be
// installed and removed.
func TestKindsAreTheCharts(t *testing.T) {
	t.Parallel()
	c := installtest.New(t)
	all := []map[string]any{{}, {"webhook": map[string]any{"certificates": map[string]any{"existingSecret": "x"}}}, {"webhook": map[string]any{"advice": false}}}
	for _, values := range all {
		if _, err := apply(t, c, render(t, values)); err != nil {
			t.Error(err)
		}
	}
	_, err := apply(t, c, []chart.Object{{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "p"}}})
	if err == nil || !strings.Contains(err.Error(), `"Pod"`) {
		t.Errorf("err = %v", err)
	}
	_, err = apply(t, c, []chart.Object{{"apiVersion": "v2", "kind": "Service", "metadata": map[string]any{"name": "p"}}})
	if err == nil || !strings.Contains(err.Error(), `"v2"`) {
		t.Errorf("err = %v", err)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	v := map[string]any{"image": map[string]any{"tag": "1"}}
	for _, s := range []string{"image.tag=1.0", "webhook.replicas=3", "webhook.advice=false", "trust.ca=null", "webhook.exemptNamespaces=[a, b]", `webhook.nodeSelector.kubernetes\.io/os=linux`, "tenantID=a=b", "empty="} {
		if err := install.Set(v, s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	want := map[string]any{
		"image": map[string]any{"tag": "1.0"}, "trust": map[string]any{"ca": nil}, "tenantID": "a=b", "empty": "",
		"webhook": map[string]any{"replicas": int64(3), "advice": false, "exemptNamespaces": []any{"a", "b"}, "nodeSelector": map[string]any{"kubernetes.io/os": "linux"}},
	}
	if d := cmp.Diff(want, v); d != "" {
		t.Error(d)
	}
	for _, s := range []string{"", "a", "=a", "a..b=c", ".a=b", "a=[", "a={b"} {
		if err := install.Set(map[string]any{}, s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
	base := map[string]any{"a": map[string]any{"b": 1, "c": 2}, "d": 3}
	over := chart.Overlay(base, map[string]any{"a": map[string]any{"c": nil, "e": 4}, "d": map[string]any{"f": 5}})
	if d := cmp.Diff(map[string]any{"a": map[string]any{"b": 1, "c": nil, "e": 4}, "d": map[string]any{"f": 5}}, over); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]any{"a": map[string]any{"b": 1, "c": 2}, "d": 3}, base); d != "" {
		t.Errorf("the base was changed: %s", d)
	}
	for ref, want := range map[string][3]string{
		"podkey": {"podkey", "", ""}, "reg:5000/podkey": {"reg:5000/podkey", "", ""}, "reg:5000/podkey:v1": {"reg:5000/podkey", "v1", ""},
		"reg/podkey@sha256:00": {"reg/podkey", "", "sha256:00"},
	} {
		v, err := install.Image(ref)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		m := v["image"].(map[string]any)
		if got := [3]string{m["repository"].(string), m["tag"].(string), m["digest"].(string)}; got != want {
			t.Errorf("%s: %v", ref, got)
		}
	}
	for _, ref := range []string{"", ":v1", "a:", "a@", "a@md5:0", "a b", "@sha256:00"} {
		if _, err := install.Image(ref); err == nil {
			t.Errorf("%q was taken", ref)
		}
	}
}

// TestManifestsOfAzure: without an authority of Podkey's nothing is trusted
// beside the public certificates.
func TestManifestsOfAzure(t *testing.T) {
	t.Parallel()
	objects, err := chart.Render(chart.Release{Values: install.Authority{TenantID: "8e8f1d70-1ac5-4b0e-9c0e-6d1f2f5b7a01"}.Values()})
	if err != nil {
		t.Fatal(err)
	}
	b, err := chart.YAML(objects)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte("--authority-host=https://login.microsoftonline.com/")) || bytes.Contains(b, []byte("trust-ca")) || bytes.Contains(b, []byte("--own-names")) {
		t.Errorf("%s", b)
	}
	if !slices.ContainsFunc(render(t, nil), func(o chart.Object) bool { return o["kind"] == "ConfigMap" }) {
		t.Error("Podkey's CA is not in its own manifests")
	}
}
