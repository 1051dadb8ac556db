package admission_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/admission"
)

// maker is an object that makes pods of a template, with labels of its own and
// of its pods, as JSON members.
func maker(t testing.TB, kind, labels, podMeta, podSpec string) object {
	t.Helper()
	template := `{"metadata":{` + podMeta + `},"spec":{` + podSpec + `}}`
	spec := `{"replicas":2,"selector":{},"template":` + template + `}`
	version := "apps/v1"
	switch kind {
	case "CronJob":
		spec, version = `{"schedule":"* * * * *","jobTemplate":{"spec":`+spec+`}}`, "batch/v1"
	case "Job":
		version = "batch/v1"
	}
	return parse(t, `{"apiVersion":"`+version+`","kind":"`+kind+`","metadata":{"name":"web","labels":{`+labels+`}},"spec":`+spec+`}`).(object)
}

func advise(t testing.TB, r *admission.Rules, obj any) []string {
	t.Helper()
	res := r.Advise(context.Background(), review(t, obj), known.lookup, nil)
	a := decode(t, res)
	if !a.Response.Allowed || a.Response.Patch != nil || a.Response.UID != "u-1" {
		t.Fatalf("answer: %s", res.Body)
	}
	if (res.Outcome == admission.Advised) != (len(a.Response.Warnings) > 0) {
		t.Errorf("outcome %s with %d warnings", res.Outcome, len(a.Response.Warnings))
	}
	equal(t, "warnings in answer and response", len(res.Warnings), len(a.Response.Warnings))
	return a.Response.Warnings
}

const use = `"azure.workload.identity/use":"true"`

// annotated are accounts with an identity, and one per mistake.
func withAccounts(t *testing.T) {
	for name, annotations := range map[string]map[string]string{
		"noid": {keys + "client-id": "my-identity"}, "long": {keys + "service-account-token-expiration": "100", keys + "client-id": clientID},
	} {
		known[name] = annotations
		t.Cleanup(func() { delete(known, name) })
	}
}

func TestAdvice(t *testing.T) {
	withAccounts(t)
	r := rules(t, admission.Config{Trust: &admission.Trust{CA: ca}})
	podOf := func(meta, spec string) object {
		return parse(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web",`+meta+`},"spec":{`+spec+`}}`).(object)
	}
	accountOf := func(annotations string) object {
		return parse(t, `{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"web","annotations":{`+annotations+`}}}`).(object)
	}
	const (
		asSA  = `"serviceAccountName":"sa",` + oneApp
		asked = `"labels":{` + use + `}`
	)
	app := func(env string) string {
		return `"serviceAccountName":"sa","containers":[{"name":"app","env":[` + env + `]}]`
	}
	for name, tc := range map[string]struct {
		object object
		want   []string // the warning's parts; none: no warning
	}{
		"all well":        {podOf(asked, asSA), nil},
		"all well, maker": {maker(t, "Deployment", "", asked, asSA), nil},
		"not concerned":   {podOf(`"labels":{}`, oneApp), nil},
		"nothing at all":  {podOf(`"labels":null`, `"serviceAccountName":"gone"`), nil},
		"opted out":       {podOf(`"labels":{"azure.workload.identity/use":"false"}`, asSA), nil},
		"no label":        {podOf(`"labels":{}`, asSA), []string{`Pod shop/web: add azure.workload.identity/use: "true" to the labels of metadata:`, "service account shop/sa"}},
		"value True":      {podOf(`"labels":{"azure.workload.identity/use":"True"}`, asSA), []string{`write azure.workload.identity/use: "true" in the labels of metadata: the value "True"`}},
		"value yes":       {maker(t, "StatefulSet", "", `"labels":{"azure.workload.identity/use":"yes"}`, asSA), []string{"StatefulSet shop/web: write ", `the labels of spec.template.metadata: the value "yes"`}},
		"no client id": {podOf(asked, `"serviceAccountName":"bare",`+oneApp),
			[]string{"kubectl annotate serviceaccount bare -n shop azure.workload.identity/client-id=CLIENT-ID", "service account shop/bare lacks"}},
		"no service account": {podOf(asked, `"serviceAccountName":"gone",`+oneApp), []string{"kubectl create serviceaccount gone -n shop"}},
		"default":            {podOf(asked, oneApp), []string{"set serviceAccountName", "azure.workload.identity/client-id"}},
		"id is no GUID":      {podOf(asked, `"serviceAccountName":"noid",`+oneApp), []string{"service account shop/noid: annotation azure.workload.identity/client-id must be", `is "my-identity"`}},
		"two identities":     {podOf(`"labels":{`+use+`,"aadpodidbinding":"x"}`, asSA), []string{"remove the label aadpodidbinding from metadata"}},
		"another client id":  {podOf(asked, app(`{"name":"AZURE_CLIENT_ID","value":"other"}`)), []string{`remove AZURE_CLIENT_ID from container "app"`, `"other" counts`}},
		"the same client id": {podOf(asked, app(`{"name":"AZURE_CLIENT_ID","value":"`+clientID+`"}`)), nil},
		"client id by ref":   {podOf(asked, app(`{"name":"AZURE_CLIENT_ID","valueFrom":{"secretKeyRef":{}}}`)), nil},
		"Java options":       {podOf(asked, app(`{"name":"JAVA_TOOL_OPTIONS","value":"-Xmx1g"}`)), []string{`JAVA_TOOL_OPTIONS of container "app"`, "-Djavax.net.ssl.trustStore=/var/run/secrets/podkey/trust/truststore.p12"}},
		"Java options, ours": {podOf(asked, app(`{"name":"JAVA_TOOL_OPTIONS","value":"-Xmx1g -Djavax.net.ssl.trustStore=/var/run/secrets/podkey/trust/truststore.p12"}`)), nil},
		"skipped": {podOf(asked+`,"annotations":{"azure.workload.identity/skip-containers":"x; app"}`,
			app(`{"name":"JAVA_TOOL_OPTIONS","value":"-Xmx1g"},{"name":"AZURE_CLIENT_ID","value":"other"}`)), nil},
		"expiration": {maker(t, "Deployment", "", asked+`,"annotations":{"azure.workload.identity/service-account-token-expiration":"100"}`, asSA),
			[]string{"Deployment shop/web: pods will be refused: the pod's annotation azure.workload.identity/service-account-token-expiration: token expiration 100 not valid"}},
		"expiration of the account": {maker(t, "Deployment", "", asked, `"serviceAccountName":"long",`+oneApp), []string{"pods will be refused: service account shop/long, annotation"}},
		"host network":              {maker(t, "DaemonSet", "", asked+`,"annotations":{"azure.workload.identity/inject-proxy-sidecar":"true"}`, `"hostNetwork":true,`+asSA), []string{"pods will be refused: hostNetwork is set"}},
		"mount in the way": {maker(t, "Deployment", "", asked, `"serviceAccountName":"sa","containers":[{"name":"app","volumeMounts":[{"name":"v","mountPath":"/var/run/secrets/azure/tokens"}]}]`),
			[]string{`pods will be refused: container "app" mounts volume "v"`}},
		"proxy on Windows": {podOf(asked+`,"annotations":{"azure.workload.identity/inject-proxy-sidecar":"true"}`, `"os":{"name":"windows"},`+asSA), []string{"there is no proxy for Windows"}},
		"label as annotation": {podOf(`"annotations":{`+use+`}`, oneApp),
			[]string{"move azure.workload.identity/use from the annotations to the labels of metadata"}},
		"client id on a pod":    {podOf(asked+`,"annotations":{"azure.workload.identity/client-id":"x"}`, asSA), []string{"move the annotation azure.workload.identity/client-id to the ServiceAccount"}},
		"misspelt":              {podOf(asked+`,"annotations":{"azure.workload.identity/skip-container":"x"}`, asSA), []string{"write azure.workload.identity/skip-containers for the annotation azure.workload.identity/skip-container,"}},
		"somebody else's":       {podOf(asked+`,"annotations":{"azure.workload.identity/future-thing":"x","azure.workload.identity/foo":"x","identity.example.com/user":"x"}`, asSA), nil},
		"account":               {accountOf(`"azure.workload.identity/client-id":"` + clientID + `"`), nil},
		"account, no GUID":      {accountOf(`"azure.workload.identity/client-id":"{` + clientID + `}"`), []string{"ServiceAccount shop/web: annotation azure.workload.identity/client-id must be"}},
		"account, misspelt":     {accountOf(`"azure.workload.identity/clientid":"` + clientID + `"`), []string{"write azure.workload.identity/client-id for the annotation azure.workload.identity/clientid"}},
		"account, other prefix": {accountOf(`"azure.workload-identity.io/client-id":"` + clientID + `"`), []string{"write azure.workload.identity/client-id for"}},
		"account, ID":           {accountOf(`"Azure.Workload.Identity/Client_ID":"` + clientID + `"`), []string{"write azure.workload.identity/client-id for"}},
		"account, expiration":   {accountOf(`"azure.workload.identity/service-account-token-expiration":"1h"`), []string{"its pods will be refused: strconv.ParseInt"}},
		"account, pod's":        {accountOf(`"azure.workload.identity/inject-proxy-sidecar":"true"`), []string{"move the annotation azure.workload.identity/inject-proxy-sidecar to the Pod"}},
		"config map":            {parse(t, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"labels":{`+use+`}}}`).(object), nil},
		"mirror":                {podOf(`"annotations":{"kubernetes.io/config.mirror":"x"}`, asSA), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := advise(t, r, tc.object)
			if tc.want == nil {
				if len(got) > 0 {
					t.Errorf("warnings: %q", got)
				}
				return
			}
			if len(got) != 1 {
				t.Fatalf("warnings: %q", got)
			}
			for _, w := range tc.want {
				if !strings.Contains(got[0], w) {
					t.Errorf("%q lacks %q", got[0], w)
				}
			}
		})
	}
}

// After the mutating webhook there is nothing left to warn about.
func TestNoAdviceOnOurOwnWork(t *testing.T) {
	r := rules(t, admission.Config{NativeSidecars: true, Trust: &admission.Trust{CA: ca}})
	p := mutate(t, r, pod(t, inject(), oneApp))
	if got := advise(t, r, p); len(got) > 0 {
		t.Errorf("warnings: %q", got)
	}
}

func TestLabelOnTheMakerOnly(t *testing.T) {
	r := rules(t, admission.Config{})
	for kind, at := range map[string]string{
		"Deployment": "spec.template.metadata", "StatefulSet": "spec.template.metadata", "DaemonSet": "spec.template.metadata", "ReplicaSet": "spec.template.metadata",
		"Job": "spec.template.metadata", "CronJob": "spec.jobTemplate.spec.template.metadata",
	} {
		got := advise(t, r, maker(t, kind, use, ``, `"serviceAccountName":"bare",`+oneApp))
		if len(got) != 1 || !strings.HasPrefix(got[0], kind+` shop/web: add azure.workload.identity/use: "true" to the labels of `+at+`: the label of the `+kind) {
			t.Errorf("%s: %q", kind, got)
		}
		on := maker(t, kind, use, `"labels":{`+use+`}`, `"serviceAccountName":"sa",`+oneApp)
		on["metadata"].(object)["annotations"] = object{keys + "service-account-token-expiration": "4800"}
		got = advise(t, r, on)
		if len(got) != 1 || !strings.Contains(got[0], "move the annotation azure.workload.identity/service-account-token-expiration to the annotations of "+at) {
			t.Errorf("%s: %q", kind, got)
		}
	}
}

// Kubernetes shows 256 characters of a warning and 4096 of all.
func TestAdviceIsBounded(t *testing.T) {
	r := rules(t, admission.Config{Trust: &admission.Trust{CA: ca}})
	var many []string
	for range 300 {
		many = append(many, `{"name":"c`+strconv.Itoa(len(many))+`","env":[{"name":"JAVA_TOOL_OPTIONS"},{"name":"AZURE_CLIENT_ID","value":"\n"}]}`)
	}
	obj := maker(t, "Deployment", use, `"labels":{`+use+`}`, `"serviceAccountName":"sa","containers":[`+strings.Join(many, ",")+`]`)
	obj["metadata"].(object)["name"] = strings.Repeat("n", 253)
	got, total := advise(t, r, obj), 0
	for _, w := range got {
		if total += len(w); len(w) > 256 || strings.Contains(w, "\n") {
			t.Errorf("%d: %q", len(w), w)
		}
	}
	if total > 4096 || len(got) < 2 {
		t.Errorf("%d characters in %d warnings", total, len(got))
	}
	// The line to add survives long names.
	obj = maker(t, "Deployment", "", `"labels":{`+use+`}`, `"serviceAccountName":"bare",`+oneApp)
	obj["metadata"].(object)["name"] = strings.Repeat("n", 63)
	if got := advise(t, r, obj); len(got) != 1 || !strings.Contains(got[0], "kubectl annotate serviceaccount bare -n shop azure.workload.identity/client-id=CLIENT-ID") {
		t.Errorf("%q", got)
	}
}

func TestNoAdviceWithoutKnowledge(t *testing.T) {
	r := rules(t, admission.Config{})
	fails := func(context.Context, string, string) (admission.ServiceAccount, error) {
		return admission.ServiceAccount{}, errors.New("no answer")
	}
	for _, labels := range []object{{}, {keys + "use": "true"}} {
		p := pod(t, nil, oneApp)
		p["metadata"].(object)["labels"] = labels
		if res := r.Advise(context.Background(), review(t, p), fails, nil); res.Outcome != admission.Silent || !decode(t, res).Response.Allowed {
			t.Errorf("%s", res.Body)
		}
	}
	body := strings.Replace(string(review(t, pod(t, nil, oneApp))), `"CREATE"`, `"DELETE"`, 1)
	if res := r.Advise(context.Background(), []byte(body), fails, nil); res.Outcome != admission.Skipped {
		t.Errorf("deletion: %s", res.Outcome)
	}
}
