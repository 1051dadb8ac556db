package admission_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"github.com/podkey/podkey/internal/admission"
)

// FuzzReview sends any body to both webhooks: there is an answer, the advice
// never refuses, and a patch applies to what was sent and leaves nothing to do.
func FuzzReview(f *testing.F) {
	f.Add(review(f, pod(f, inject("skip-containers", "a;b", "proxy-sidecar-port", "9000"), `"initContainers":[{"name":"i"}],"volumes":[{"name":"v"}],`+oneApp)))
	f.Add(review(f, pod(f, map[string]string{keys + "service-account-token-expiration": "4000", keys + "clientid": "x"},
		`"containers":[{"name":"app","env":[{"name":"AZURE_CLIENT_ID","value":"x"}],"volumeMounts":[{"name":"azure-identity-token","mountPath":"/x"}]}],"volumes":[]`)))
	f.Add(review(f, maker(f, "CronJob", use, `"labels":{`+use+`}`, oneApp)))
	f.Add([]byte(`{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"\ud800","object":null}}`))
	r := rules(f, admission.Config{NativeSidecars: true, Profile: admission.Hashed, Trust: &admission.Trust{CA: ca}})
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, f := range []func(context.Context, []byte, admission.Lookup, []byte) admission.Response{r.Mutate, r.Advise} {
			res := f(context.Background(), body, known.lookup, nil)
			if res.Outcome == "" || res.Body == nil && res.Message == "" || res.Body != nil && !json.Valid(res.Body) {
				t.Fatalf("%+v", res)
			}
			if res.Body == nil {
				continue
			}
			a := decode(t, res)
			if (res.Outcome == admission.Denied) == a.Response.Allowed {
				t.Fatalf("%s: %s", res.Outcome, res.Body)
			}
			for _, w := range a.Response.Warnings {
				if len(w) > 256 {
					t.Fatalf("warning %q", w)
				}
			}
			if a.Response.Patch == nil || !json.Valid(body) {
				continue
			}
			var sent struct {
				Request struct{ Object json.RawMessage }
			}
			if json.Unmarshal(body, &sent) != nil || strings.Count(string(body), `"spec"`) != 1 {
				continue // names in other cases of letters, which encoding/json takes for the same
			}
			p, err := jsonpatch.DecodePatch(a.Response.Patch)
			if err != nil {
				t.Fatal(err)
			}
			after, err := p.Apply(sent.Request.Object)
			if err != nil {
				t.Fatalf("%v\n%s", err, a.Response.Patch)
			}
			again := r.Mutate(context.Background(), review(t, json.RawMessage(after)), known.lookup, nil)
			if again.Outcome != admission.Unchanged {
				t.Fatalf("second pass: %s", again.Body)
			}
		}
	})
}
