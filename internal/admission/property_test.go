package admission_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"pgregory.net/rapid"

	"github.com/podkey/podkey/internal/admission"
)

// something is any JSON value: fields that nobody here knows.
func something(t *rapid.T) any {
	return rapid.OneOf(
		rapid.Just[any](nil), rapid.Just[any](true), rapid.Just[any](12.5), rapid.Just[any]("text \u2028 \"\\"),
		rapid.Just[any](list{}), rapid.Just[any](object{"a/b~c": list{object{"": nil}}, "name": "azure-identity-token"}),
	).Draw(t, "something")
}

// maybe puts a value into an object, or nothing.
func maybe(t *rapid.T, o object, key string, value func() any) {
	if rapid.Bool().Draw(t, key) {
		o[key] = value()
	}
}

var (
	ourNames = []string{
		"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST", "AZURE_KUBERNETES_CA_DATA", "AZURE_KUBERNETES_CA_FILE",
		"AZURE_KUBERNETES_TOKEN_PROXY", "AZURE_REGIONAL_AUTHORITY_NAME", "SSL_CERT_FILE", "JAVA_TOOL_OPTIONS", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "POD_NAME", "PATH", "a/b~c",
	}
	ourVolumes = []string{"azure-identity-token", "podkey-trust", reserved("web"), reserved("x"), "azure-workload-identity-reserved-", "data", "a~1b"}
	ourPaths   = []string{
		"/var/run/secrets/azure/tokens", "/var/run/secrets/azure/tokens/", wi, wi + "/" + reserved("web")[33:], "/var/run/secrets/podkey/trust", "/data", "/tmp", "/",
	}
	ourContainers = []string{"azwi-proxy", "azwi-proxy-init", "podkey-trust"}
)

func anyContainer(t *rapid.T, used map[string]bool) object {
	c := object{"image": "i"}
	name := rapid.OneOf(rapid.SampledFrom(ourContainers), rapid.StringMatching(`[a-z][-a-z0-9]{0,5}`)).
		Filter(func(s string) bool { return !used[s] }).Draw(t, "container")
	used[name] = true
	c["name"] = name
	maybe(t, c, "env", func() any {
		var l list
		for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom(ourNames), 0, 5, rapid.ID).Draw(t, "names") {
			v := object{"name": n}
			switch rapid.IntRange(0, 3).Draw(t, "kind of value") {
			case 0:
				v["valueFrom"] = something(t)
			case 1:
				v["value"] = authority
			default:
				v["value"] = rapid.String().Draw(t, "value")
			}
			l = append(l, v)
		}
		return l // null if empty
	})
	maybe(t, c, "volumeMounts", func() any {
		l := list{}
		for _, p := range rapid.SliceOfNDistinct(rapid.SampledFrom(ourPaths), 0, 3, rapid.ID).Draw(t, "paths") {
			m := object{"name": rapid.SampledFrom(ourVolumes).Draw(t, "volume"), "mountPath": p}
			maybe(t, m, "readOnly", func() any { return rapid.Bool().Draw(t, "ro") })
			maybe(t, m, "subPath", func() any { return rapid.SampledFrom([]string{"", "x"}).Draw(t, "sub") })
			l = append(l, m)
		}
		return l
	})
	maybe(t, c, "future~field", func() any { return something(t) })
	maybe(t, c, "restartPolicy", func() any { return "Always" })
	return c
}

func anyVolume(t *rapid.T, name string) object {
	v := object{"name": name}
	switch rapid.IntRange(0, 4).Draw(t, "kind of volume") {
	case 0:
		v["emptyDir"] = object{"medium": "Memory", "sizeLimit": "4Mi"}
	case 1, 2:
		token := object{
			"path":              rapid.SampledFrom([]string{"azure-identity-token", "token/azure-identity-token", "token"}).Draw(t, "path"),
			"audience":          rapid.SampledFrom([]string{"api://AzureADTokenExchange", "api://AKSIdentityBinding", "x"}).Draw(t, "audience"),
			"expirationSeconds": 3600,
		}
		v["projected"] = object{"defaultMode": rapid.SampledFrom([]int{420, 256}).Draw(t, "mode"), "sources": list{object{"serviceAccountToken": token}}}
	case 3:
		v["projected"] = something(t)
	default:
		v["futureVolume"] = something(t)
	}
	return v
}

func anyPod(t *rapid.T) object {
	s, used := object{"serviceAccountName": rapid.SampledFrom([]string{"sa", "bare", "default", ""}).Draw(t, "account")}, map[string]bool{}
	containers := func(most int) func() any {
		return func() any {
			l := list{}
			for range rapid.IntRange(0, most).Draw(t, "containers") {
				l = append(l, anyContainer(t, used))
			}
			return l
		}
	}
	maybe(t, s, "containers", containers(4))
	maybe(t, s, "initContainers", containers(3))
	maybe(t, s, "volumes", func() any {
		l := list{}
		for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom(ourVolumes), 0, 4, rapid.ID).Draw(t, "volumes") {
			l = append(l, anyVolume(t, n))
		}
		return l
	})
	for _, k := range []string{"future", "template", "jobTemplate", "ephemeralContainers", "x/y~z"} {
		maybe(t, s, k, func() any { return something(t) })
	}
	maybe(t, s, "os", func() any {
		return object{"name": rapid.SampledFrom([]string{"linux", "windows"}).Draw(t, "os")}
	})
	maybe(t, s, "hostNetwork", func() any { return rapid.IntRange(0, 4).Draw(t, "host") == 0 })

	meta := object{"labels": object{keys + "use": "true"}}
	maybe(t, meta, "name", func() any { return rapid.StringMatching(`[a-z]([-a-z0-9.]{0,20}[a-z0-9])?`).Draw(t, "name") })
	maybe(t, meta, "generateName", func() any { return "web-" })
	maybe(t, meta, "managedFields", func() any { return something(t) })
	maybe(t, meta, "annotations", func() any {
		a := object{}
		for k, values := range map[string][]string{
			"inject-proxy-sidecar": {"true", "false", ""}, "proxy-protocol": {"imds", "appservice"}, "proxy-sidecar-port": {"8000", "9000"},
			"skip-containers": {"a", "azwi-proxy;b", "podkey-trust", ""}, "service-account-token-expiration": {"3600", "4000", ""}, "use-identity-binding": {"true", "x"},
		} {
			maybe(t, a, keys+k, func() any { return rapid.SampledFrom(values).Draw(t, k) })
		}
		maybe(t, a, rapid.StringMatching(`[a-z~/"\\é]{1,10}`).Draw(t, "key"), func() any { return rapid.String().Draw(t, "annotation") })
		return a
	})
	return object{"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": s, "status": something(t)}
}

func anyRules(t *rapid.T) *admission.Rules {
	c := admission.Config{
		TenantID: tenantID, NativeSidecars: rapid.Bool().Draw(t, "native"), Images: admission.Images{Proxy: "p"},
		Profile: rapid.SampledFrom([]admission.Profile{"", admission.Classic, admission.Reserved, admission.Hashed, admission.Both}).Draw(t, "profile"),
	}
	if rapid.Bool().Draw(t, "trust") {
		c.Trust, c.Extra = &admission.Trust{CA: ca}, []admission.EnvVar{{Name: "AZURE_REGIONAL_AUTHORITY_NAME", Value: "podkey"}}
	}
	if rapid.Bool().Draw(t, "endpoint") {
		c.CustomEndpoint = endpoint()
		if rapid.Bool().Draw(t, "as data") {
			c.CustomEndpoint.CAConfigMap, c.CustomEndpoint.CAData = "", ca
		}
	}
	r, err := admission.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ask is Mutate on a pod, and the decoded patch.
func ask(t *rapid.T, r *admission.Rules, pod []byte) (admission.Response, jsonpatch.Patch) {
	body := fmt.Appendf(nil, `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u-1","namespace":"shop","operation":"CREATE","object":%s}}`, pod)
	res := r.Mutate(context.Background(), body, known.lookup, nil)
	var a answer
	if err := json.Unmarshal(res.Body, &a); err != nil {
		t.Fatalf("%s: %v", res.Body, err)
	}
	if a.Response.Patch == nil {
		return res, nil
	}
	p, err := jsonpatch.DecodePatch(a.Response.Patch)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range p {
		path, err := o.Path()
		if err != nil || o.Kind() != "add" && (o.Kind() != "replace" || !strings.HasPrefix(path, "/spec/volumes/") && !strings.Contains(path, "/volumeMounts/")) {
			t.Fatalf("operation %s of %s: %v", o.Kind(), path, err)
		}
	}
	return res, p
}

// Any pod: the patch applies, nothing of the author's is gone or different, and
// the second pass has nothing to do, whatever the pod is called by then.
func TestAnyPod(t *testing.T) {
	mutated := 0
	rapid.Check(t, func(t *rapid.T) {
		r, before := anyRules(t), anyPod(t)
		text, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		res, patch := ask(t, r, text)
		// White space makes the reader go another way, slowly.
		var spaced bytes.Buffer
		if err := json.Indent(&spaced, text, "", "\t"); err != nil {
			t.Fatal(err)
		}
		if other, _ := ask(t, r, spaced.Bytes()); string(other.Body) != string(res.Body) {
			t.Fatalf("with white space\n%s, without\n%s", other.Body, res.Body)
		}
		if res.Outcome == admission.Denied {
			if res.Reason != admission.BadMount && res.Reason != admission.BadProxy {
				t.Fatalf("refused: %s", res.Message)
			}
			return
		}
		after, err := patch.Apply(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, res.Body)
		}
		mutated++
		var was, is object
		if err := json.Unmarshal(text, &was); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(after, &is); err != nil {
			t.Fatal(err)
		}
		unchanged(t, was, is)

		is["metadata"].(object)["name"] = "another"
		renamed, err := json.Marshal(is)
		if err != nil {
			t.Fatal(err)
		}
		for _, again := range [][]byte{after, renamed} {
			if res, patch := ask(t, r, again); res.Outcome != admission.Unchanged {
				ops, _ := json.Marshal(patch)
				t.Fatalf("second pass: %s %s\n%s\n%s", res.Outcome, res.Message, ops, bytes.TrimSpace(again))
			}
		}
	})
	if mutated == 0 {
		t.Error("no pod got through")
	}
}

// unchanged compares all that is the author's.
func unchanged(t *rapid.T, was, is object) {
	same := func(what string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("%s changed:\n%v\n%v", what, a, b)
		}
	}
	others := func(o object, but ...string) object {
		out := object{}
		for k, v := range o {
			out[k] = v
		}
		for _, k := range but {
			delete(out, k)
		}
		return out
	}
	same("the pod", others(was, "spec"), others(is, "spec"))
	a, b := was["spec"].(object), is["spec"].(object)
	same("the specification", others(a, "containers", "initContainers", "volumes"), others(b, "containers", "initContainers", "volumes"))
	ours := func(volume string) bool {
		return volume == "azure-identity-token" || volume == "podkey-trust" || strings.HasPrefix(volume, "azure-workload-identity-reserved-") && len(volume) == 63
	}
	for i, v := range items(a, "volumes") {
		if w := items(b, "volumes")[i].(object); !ours(w["name"].(string)) {
			same("a volume", v, w)
		} else if w["name"] != v.(object)["name"] {
			t.Fatalf("volume %v became %v", v, w)
		}
	}
	for _, key := range []string{"containers", "initContainers"} {
		next := 0 // the author's containers are there in their order
		for _, c := range items(a, key) {
			c := c.(object)
			for items(b, key)[next].(object)["name"] != c["name"] {
				next++
			}
			d := items(b, key)[next].(object)
			same("a container", others(c, "env", "volumeMounts"), others(d, "env", "volumeMounts"))
			for i, v := range items(c, "env") {
				same("a variable", v, items(d, "env")[i])
			}
			for i, m := range items(c, "volumeMounts") {
				if n := items(d, "volumeMounts")[i].(object); !ours(n["name"].(string)) {
					same("a mount", m, n)
				} else if n["name"] != m.(object)["name"] {
					t.Fatalf("mount %v became %v", m, n)
				}
			}
		}
	}
}
