package admission_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/admission"
)

const (
	classicFile = "/var/run/secrets/azure/tokens/azure-identity-token"
	authority   = "https://login.microsoftonline.com/"
	oneApp      = `"containers":[{"name":"app","image":"app"}]`
)

var fourVariables = []string{
	"AZURE_CLIENT_ID=" + clientID, "AZURE_TENANT_ID=" + tenantID,
	"AZURE_FEDERATED_TOKEN_FILE=" + classicFile, "AZURE_AUTHORITY_HOST=" + authority,
}

const classicMount = "azure-identity-token:/var/run/secrets/azure/tokens:ro"

func app(t testing.TB, p object) object { return named(t, items(p["spec"], "containers"), "app") }

// source is the first token source of the volume.
func source(t testing.TB, p object, volume string) object {
	t.Helper()
	v := named(t, items(p["spec"], "volumes"), volume)
	return v["projected"].(object)["sources"].(list)[0].(object)["serviceAccountToken"].(object)
}

func TestPodGetsWhatTheWalkthroughsShow(t *testing.T) {
	p := mutate(t, rules(t, admission.Config{}), pod(t, nil, oneApp))
	equal(t, "environment", environ(app(t, p)), fourVariables)
	equal(t, "mounts", mounts(app(t, p)), []string{classicMount})
	equal(t, "volumes", spec(p)["volumes"], parse(t, `[{"name":"azure-identity-token","projected":{"sources":[
		{"serviceAccountToken":{"path":"azure-identity-token","expirationSeconds":3600,"audience":"api://AzureADTokenExchange"}}]}}]`))
	if spec(p)["initContainers"] != nil {
		t.Error("init containers appeared")
	}
}

func TestTokenExpiration(t *testing.T) {
	const annotation = keys + "service-account-token-expiration"
	for name, tc := range map[string]struct {
		pod, account string
		want         float64
		refusal      string
	}{
		"neither":              {want: 3600},
		"account":              {account: "4800", want: 4800},
		"pod wins":             {pod: "4000", account: "4800", want: 4000},
		"least":                {pod: "3600", want: 3600},
		"most":                 {pod: "86400", want: 86400},
		"pod not a number":     {pod: "3600s", refusal: `strconv.ParseInt: parsing "3600s": invalid syntax`},
		"account not a number": {account: "3600s", refusal: `service account shop/x, annotation ` + annotation + `: strconv.ParseInt: parsing "3600s": invalid syntax`},
		"invalid":              {pod: "invalid", refusal: `strconv.ParseInt: parsing "invalid": invalid syntax`},
		"too short":            {pod: "3599", refusal: "token expiration 3599 not valid. Expected value to be between 3600 and 86400"},
		"too long":             {pod: "86401", refusal: "the pod's annotation " + annotation + ": token expiration 86401 not valid. Expected value to be between 3600 and 86400"},
		"account too short":    {account: "100", refusal: "token expiration 100 not valid"},
		"bad pod, good one":    {pod: "1", account: "4800", refusal: "token expiration 1 not valid"},
	} {
		t.Run(name, func(t *testing.T) {
			p := pod(t, map[string]string{annotation: tc.pod}, oneApp+`,"serviceAccountName":"x"`)
			known["x"] = map[string]string{annotation: tc.account}
			defer delete(known, "x")
			r := rules(t, admission.Config{})
			if tc.refusal != "" {
				refuse(t, r, p, admission.BadExpiration, tc.refusal, "pod shop/web")
				return
			}
			equal(t, "expiration", source(t, mutate(t, r, p), "azure-identity-token")["expirationSeconds"], tc.want)
		})
	}
}

func TestIdentity(t *testing.T) {
	for name, tc := range map[string]struct {
		account          map[string]string
		client, tenant   string
		missing, noToken bool
	}{
		"nothing":       {tenant: tenantID, missing: true},
		"client":        {account: map[string]string{keys + "client-id": "c"}, client: "c", tenant: tenantID},
		"tenant":        {account: map[string]string{keys + "tenant-id": "t"}, tenant: "t", missing: true},
		"empty tenant":  {account: map[string]string{keys + "tenant-id": ""}, missing: true},
		"strange value": {account: map[string]string{keys + "client-id": "\"\\\n<é>\u2028"}, client: "\"\\\n<é>\u2028", tenant: tenantID},
	} {
		t.Run(name, func(t *testing.T) {
			known["x"] = tc.account
			defer delete(known, "x")
			p := pod(t, nil, oneApp+`,"serviceAccountName":"x"`)
			r := rules(t, admission.Config{})
			want := []string{}
			if tc.client != "" {
				want = append(want, "AZURE_CLIENT_ID="+tc.client)
			}
			if tc.tenant != "" {
				want = append(want, "AZURE_TENANT_ID="+tc.tenant)
			}
			equal(t, "environment", environ(app(t, mutate(t, r, p))), append(want, fourVariables[2:]...))
			if res := r.Mutate(context.Background(), review(t, p), known.lookup, nil); res.NoClientID != tc.missing || res.ServiceAccount != "x" {
				t.Errorf("response: %+v", res)
			}
		})
	}
}

func TestServiceAccount(t *testing.T) {
	r := rules(t, admission.Config{})
	mutate(t, r, pod(t, nil, oneApp+`,"serviceAccountName":""`)) // default
	mutate(t, r, pod(t, nil, oneApp+`,"serviceAccountName":null`))
	old := pod(t, nil, oneApp+`,"serviceAccountName":"","serviceAccount":"sa"`)
	equal(t, "by its deprecated name", environ(app(t, mutate(t, r, old))), fourVariables)
	refuse(t, r, pod(t, nil, oneApp+`,"serviceAccountName":"gone"`), admission.BadServiceAccount, `serviceaccounts "gone" not found`, "shop")

	var asked string
	res := r.Mutate(context.Background(), review(t, pod(t, nil, oneApp)), func(_ context.Context, namespace, name string) (admission.ServiceAccount, error) {
		asked = namespace + "/" + name
		return admission.ServiceAccount{}, errors.New("the API server does not answer")
	}, nil)
	if res.Reason != admission.BadServiceAccount || !strings.Contains(res.Message, "service account shop/sa: the API server does not answer") || asked != "shop/sa" {
		t.Errorf("%+v, asked for %s", res, asked)
	}
}

func TestSkippedContainers(t *testing.T) {
	const three = `"initContainers":[{"name":"container3"}],"containers":[{"name":"container1"},{"name":"container2"}]`
	for annotation, want := range map[string][]string{
		"":                         {"container3", "container1", "container2"},
		"container1":               {"container3", "container2"},
		"container1;":              {"container3", "container2"},
		"container1;container2":    {"container3"},
		"container1; container2":   {"container3"},
		" container3 ;unknown":     {"container1", "container2"},
		"container":                {"container3", "container1", "container2"},
		"container3;container1;;x": {"container2"},
	} {
		p := mutate(t, rules(t, admission.Config{}), pod(t, map[string]string{keys + "skip-containers": annotation}, three))
		var got []string
		for _, c := range append(items(p["spec"], "initContainers"), items(p["spec"], "containers")...) {
			switch len(environ(c)) + len(mounts(c)) {
			case 0:
			case 5:
				got = append(got, c.(object)["name"].(string))
			default:
				t.Errorf("half of what it should be: %v", c)
			}
		}
		equal(t, annotation, got, want)
	}
	all := mutate(t, rules(t, admission.Config{}), pod(t, map[string]string{keys + "skip-containers": "app"}, oneApp))
	equal(t, "volume although all are skipped", names(items(all["spec"], "volumes")), []string{"azure-identity-token"})
}

func TestVolumes(t *testing.T) {
	const good = `{"name":"azure-identity-token","projected":{"sources":[{"serviceAccountToken":{"audience":"api://AzureADTokenExchange","expirationSeconds":3600,"path":"azure-identity-token"}}]}}`
	for name, tc := range map[string]struct{ volumes, want string }{
		"none":                    {``, `[` + good + `]`},
		"null":                    {`,"volumes":null`, `[` + good + `]`},
		"empty":                   {`,"volumes":[]`, `[` + good + `]`},
		"another":                 {`,"volumes":[{"name":"a","emptyDir":{}}]`, `[{"name":"a","emptyDir":{}},` + good + `]`},
		"ours":                    {`,"volumes":[` + good + `]`, `[` + good + `]`},
		"ours, other audience":    {`,"volumes":[` + strings.ReplaceAll(good, "api://AzureAD", "x") + `,{"name":"a"}]`, `[` + good + `,{"name":"a"}]`},
		"ours, other expiration":  {`,"volumes":[` + strings.ReplaceAll(good, "3600", "7200") + `]`, `[` + good + `]`},
		"our name, a secret":      {`,"volumes":[{"name":"azure-identity-token","secret":{"secretName":"forged"}}]`, `[` + good + `]`},
		"our name, more in it":    {`,"volumes":[` + strings.Replace(good, `"projected":{`, `"projected":{"defaultMode":511,`, 1) + `]`, `[` + good + `]`},
		"the kubelet's, as usual": {`,"volumes":[{"name":"kube-api-access-x","projected":{"sources":[{"serviceAccountToken":{"path":"token"}}]}}]`, `[{"name":"kube-api-access-x","projected":{"sources":[{"serviceAccountToken":{"path":"token"}}]}},` + good + `]`},
	} {
		t.Run(name, func(t *testing.T) {
			p := mutate(t, rules(t, admission.Config{}), pod(t, nil, oneApp+tc.volumes))
			equal(t, "volumes", spec(p)["volumes"], parse(t, tc.want))
		})
	}
}

func TestEnvironmentOfTheUsers(t *testing.T) {
	for name, tc := range map[string]struct {
		env  string
		want []string
	}{
		"null":      {`null`, fourVariables},
		"empty":     {`[]`, fourVariables},
		"unrelated": {`[{"name":"A","value":"1"}]`, append([]string{"A=1"}, fourVariables...)},
		"all four": {
			`[{"name":"AZURE_CLIENT_ID","value":"a"},{"name":"AZURE_TENANT_ID","value":""},{"name":"AZURE_FEDERATED_TOKEN_FILE","value":"c"},{"name":"AZURE_AUTHORITY_HOST","value":"d"}]`,
			[]string{"AZURE_CLIENT_ID=a", "AZURE_TENANT_ID=", "AZURE_FEDERATED_TOKEN_FILE=c", "AZURE_AUTHORITY_HOST=d"},
		},
		"a reference": {
			`[{"name":"AZURE_CLIENT_ID","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}]`,
			append([]string{"AZURE_CLIENT_ID=<metadata.name>"}, fourVariables[1:]...),
		},
		"nearly the name": {`[{"name":"azure_client_id","value":"a"}]`, append([]string{"azure_client_id=a"}, fourVariables...)},
	} {
		t.Run(name, func(t *testing.T) {
			// envFrom is not looked at.
			p := mutate(t, rules(t, admission.Config{}), pod(t, nil, `"containers":[{"name":"app","envFrom":[{"configMapRef":{"name":"AZURE_CLIENT_ID"}}],"env":`+tc.env+`}]`))
			equal(t, "environment", environ(app(t, p)), tc.want)
		})
	}
}

func TestMounts(t *testing.T) {
	const other = `{"name":"a","mountPath":"/a"}`
	for name, tc := range map[string]struct {
		mounts string
		want   []string
	}{
		"none":                   {`null`, []string{classicMount}},
		"another":                {`[` + other + `]`, []string{"a:/a", classicMount}},
		"ours":                   {`[{"name":"azure-identity-token","mountPath":"/var/run/secrets/azure/tokens","readOnly":true}]`, []string{classicMount}},
		"ours, writable":         {`[{"name":"azure-identity-token","mountPath":"/var/run/secrets/azure/tokens"}]`, []string{classicMount}},
		"ours, a part":           {`[{"name":"azure-identity-token","mountPath":"/var/run/secrets/azure/tokens","readOnly":true,"subPath":"x"}]`, []string{classicMount}},
		"ours, with a slash":     {`[` + other + `,{"name":"azure-identity-token","mountPath":"/var/run/secrets/azure/tokens/","readOnly":true}]`, []string{"a:/a", classicMount}},
		"ours, somewhere else":   {`[{"name":"azure-identity-token","mountPath":"/x","readOnly":true}]`, []string{"azure-identity-token:/x:ro", classicMount}},
		"the same by other name": {`[{"name":"mine","mountPath":"/var/run/secrets/azure/tokens"}]`, []string{"mine:/var/run/secrets/azure/tokens"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := mutate(t, rules(t, admission.Config{}), pod(t, nil, `"containers":[{"name":"app","volumeMounts":`+tc.mounts+`}],"volumes":[{"name":"a","emptyDir":{}},
				{"name":"mine","projected":{"sources":[{"configMap":{"name":"c"}},{"serviceAccountToken":{"path":"azure-identity-token","audience":"api://AzureADTokenExchange"}}]}}]`))
			equal(t, "mounts", mounts(app(t, p)), tc.want)
			for _, m := range items(app(t, p), "volumeMounts") {
				if m.(object)["subPath"] != nil {
					t.Error("part of the volume is mounted, which the node does not refresh")
				}
			}
		})
	}
}

func TestMountThatIsInTheWay(t *testing.T) {
	for _, m := range []string{
		`{"name":"a","mountPath":"/var/run/secrets/azure/tokens"}`,
		`{"name":"a","mountPath":"/var/run/secrets/azure//tokens/"}`,
		`{"name":"wrong","mountPath":"/var/run/secrets/azure/tokens"}`,
		`{"name":"right","mountPath":"/var/run/secrets/azure/tokens","subPath":"x"}`,
	} {
		volumes := `"volumes":[{"name":"a","emptyDir":{}},
			{"name":"wrong","projected":{"sources":[{"serviceAccountToken":{"path":"azure-identity-token","audience":"vault"}}]}},
			{"name":"right","projected":{"sources":[{"serviceAccountToken":{"path":"azure-identity-token","audience":"api://AzureADTokenExchange"}}]}}]`
		refuse(t, rules(t, admission.Config{}), pod(t, nil, `"containers":[{"name":"app","volumeMounts":[`+m+`]}],`+volumes), admission.BadMount,
			`container "app" mounts volume "`, `at /var/run/secrets/azure/tokens,`, "skip-containers")
		mutate(t, rules(t, admission.Config{}), pod(t, map[string]string{keys + "skip-containers": "app"}, `"containers":[{"name":"app","volumeMounts":[`+m+`]}],`+volumes))
	}
}

func TestWhatIsNotOurs(t *testing.T) {
	p := pod(t, nil, `"containers":[{"name":"app","futureField":{"x":[1,2.5e3]}}],"initContainers":[{"name":"side","restartPolicy":"Always"}],
		"ephemeralContainers":[{"name":"debug"}],"futureList":[{"name":"azure-identity-token"}],"automountServiceAccountToken":false,"template":7,"jobTemplate":"x"`)
	before := parse(t, string(encode(t, p))).(object)
	after := mutate(t, rules(t, admission.Config{}), p)
	for _, k := range []string{"ephemeralContainers", "futureList", "automountServiceAccountToken", "template", "jobTemplate"} {
		equal(t, k, spec(after)[k], spec(before)[k])
	}
	equal(t, "init container", named(t, items(after["spec"], "initContainers"), "side")["restartPolicy"], "Always")
	equal(t, "unknown field of a container", app(t, after)["futureField"], parse(t, `{"x":[1,2500]}`))
	equal(t, "metadata", after["metadata"], before["metadata"])
}

func TestLetThrough(t *testing.T) {
	r := rules(t, admission.Config{})
	silent := func(name string, want admission.Outcome, body []byte) {
		t.Helper()
		res := r.Mutate(context.Background(), body, accounts{}.lookup, nil)
		if a := decode(t, res); !a.Response.Allowed || a.Response.Patch != nil || res.Outcome != want {
			t.Errorf("%s: %s %s", name, res.Outcome, res.Body)
		}
	}
	silent("mirror pod", admission.SkippedMirror, review(t, pod(t, map[string]string{"kubernetes.io/config.mirror": "x"}, oneApp)))
	change := func(from, to string) []byte {
		return []byte(strings.Replace(string(review(t, pod(t, nil, oneApp))), from, to, 1))
	}
	silent("update", admission.Skipped, change(`"CREATE"`, `"UPDATE"`))
	silent("delete", admission.Skipped, change(`"CREATE"`, `"DELETE"`))
	silent("subresource", admission.Skipped, change(`"CREATE"`, `"CREATE","subResource":"ephemeralcontainers"`))
}

func TestWire(t *testing.T) {
	r := rules(t, admission.Config{})
	body := review(t, pod(t, nil, oneApp))
	for _, version := range []string{"admission.k8s.io/v1", "admission.k8s.io/v1beta1"} {
		res := r.Mutate(context.Background(), []byte(strings.Replace(string(body), "admission.k8s.io/v1", version, 1)), known.lookup, nil)
		a := decode(t, res)
		if a.APIVersion != version || a.Response.UID != "u-1" || *a.Response.PatchType != "JSONPatch" {
			t.Errorf("%s: %s", version, res.Body)
		}
	}
	dry := r.Mutate(context.Background(), []byte(strings.Replace(string(body), `"dryRun":false`, `"dryRun":true`, 1)), known.lookup, nil)
	if plain := r.Mutate(context.Background(), body, known.lookup, nil); !dry.DryRun || plain.DryRun || string(dry.Body) != string(plain.Body) {
		t.Error("a dry run differs")
	}
	owned := pod(t, nil, oneApp)
	meta := owned["metadata"].(object)
	delete(meta, "name")
	meta["generateName"] = "web-"
	meta["ownerReferences"] = parse(t, `[{"kind":"x"},{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-1","uid":"u","controller":true}]`)
	res := r.Mutate(context.Background(), review(t, owned), known.lookup, nil)
	if res.Kind != "Pod" || res.Namespace != "shop" || res.Name != "web-*" || res.Owner != (admission.Owner{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1", UID: "u"}) {
		t.Errorf("%+v", res)
	}
}

func TestReviewsThatAreRefused(t *testing.T) {
	r := rules(t, admission.Config{})
	whole := func(object string) string {
		return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","namespace":"shop","operation":"CREATE","object":` + object + `}}`
	}
	spec := func(s string) string { return whole(`{"apiVersion":"v1","kind":"Pod","spec":` + s + `}`) }
	for name, tc := range map[string]struct{ body, want string }{
		"empty object":         {whole(`{}`), "couldn't get version/kind"},
		"no object":            {whole(`null`), "couldn't get version/kind; the review's request has no object"},
		"another kind":         {whole(`{"apiVersion":"apps/v1","kind":"Deployment"}`), "request.object is a Deployment of apps/v1, not a Pod of v1"},
		"no spec":              {whole(`{"apiVersion":"v1","kind":"Pod"}`), "request.object has no spec"},
		"spec null":            {spec(`null`), "request.object has no spec"},
		"container null":       {spec(`{"containers":[{},null]}`), "request.object.spec.containers[1]: null where an object belongs"},
		"variable a string":    {spec(`{"containers":[{"env":["A=1"]}]}`), "request.object.spec.containers[0].env[0]: a string where an object belongs"},
		"object a string":      {whole(`"x"`), "request.object: a string where an object belongs"},
		"containers object":    {spec(`{"containers":{}}`), "request.object.spec.containers: an object where an array belongs"},
		"env a number":         {spec(`{"containers":[{},{"env":1}]}`), "request.object.spec.containers[1].env: a number where an array belongs"},
		"name a boolean":       {spec(`{"volumes":[{"name":true}]}`), "request.object.spec.volumes[0].name: a boolean where a string belongs"},
		"network a string":     {spec(`{"hostNetwork":"true"}`), "request.object.spec.hostNetwork: a string where a boolean belongs"},
		"annotation a list":    {whole(`{"metadata":{"annotations":{"a.b/c":[]}}}`), "request.object.metadata.annotations.a.b/c: an array where a string belongs"},
		"a key twice":          {spec(`{"hostNetwork":true,"hostNetwork":false}`), `request.object.spec: "hostNetwork" occurs twice`},
		"escaped key twice":    {spec(`{"hostNetwork":true,"hostNetwor\u006b":false}`), `"hostNetwork" occurs twice`},
		"escaped key first":    {spec(`{"hostNetwor\u006b":false,"hostNetwork":true}`), `"hostNetwork" occurs twice`},
		"annotation twice":     {whole(`{"metadata":{"annotations":{"a":"","a":""}}}`), `"a" occurs twice`},
		"cut off":              {spec(`{"hostNetwork":true`)[:120], "the text ends"},
		"too deep":             {spec(`{"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`), "nested more than 256 deep"},
		"too deep, objects":    {spec(strings.Repeat(`{"template":`, 1000) + "1" + strings.Repeat("}", 1000)), "nested more than 256 deep"},
		"variable named twice": {spec(`{"containers":[{"env":[{"name":"A","name":"AZURE_CLIENT_ID"}]}]}`), `request.object.spec.containers[0].env[0]: "name" occurs twice`},
		"more behind":          {spec(`{}`) + "{}", "more text after the end"},
		"a bare word":          {spec(`{"x":nope}`), "not JSON"},
		"a control letter":     {spec("{\"x\":\"\n\"}"), "not JSON"},
		"a version unknown":    {strings.Replace(spec(`{}`), "admission.k8s.io/v1", "admission.k8s.io/v9", 1), "not an AdmissionReview"},
		"a name unprintable":   {whole(`{"apiVersion":"v1","kind":"\u0000` + strings.Repeat("x", 5000) + `"}`), "request.object is a ?xxx"},
	} {
		t.Run(name, func(t *testing.T) {
			res := r.Mutate(context.Background(), []byte(tc.body), known.lookup, nil)
			a := decode(t, res)
			if a.Response.Allowed || a.Response.UID != "u-1" || a.Response.Status.Code != 400 || res.Reason != admission.BadReview ||
				!strings.Contains(a.Response.Status.Message, tc.want) || len(res.Message) > 1000 {
				t.Errorf("%s", res.Body)
			}
			if advice := r.Advise(context.Background(), []byte(tc.body), known.lookup, nil); !decode(t, advice).Response.Allowed {
				t.Errorf("the advice refuses: %s", advice.Body)
			}
		})
	}
	for name, body := range map[string]string{
		"nothing": "", "no JSON": "hello", "a list": "[]", "null": "null", "no uid": `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}`,
		"too large": strings.Repeat(" ", admission.MaxReview+1),
	} {
		for _, answer := range []func(context.Context, []byte, admission.Lookup, []byte) admission.Response{r.Mutate, r.Advise} {
			if res := answer(context.Background(), []byte(body), known.lookup, nil); res.Body != nil || res.Message == "" {
				t.Errorf("%s: %+v", name, res)
			}
		}
	}
}

// A pod of 3 MiB is read whole, and what is read of it does not grow with it.
func TestLargestPod(t *testing.T) {
	p := pod(t, map[string]string{"big": strings.Repeat("é\n", 1_000_000)}, oneApp)
	equal(t, "environment", environ(app(t, mutate(t, rules(t, admission.Config{}), p))), fourVariables)
}

func TestLongNames(t *testing.T) {
	for _, profile := range []admission.Profile{admission.Classic, admission.Reserved, admission.Hashed, admission.Both} {
		p := pod(t, nil, `"containers":[{"name":"`+strings.Repeat("c", 63)+`"}]`)
		p["metadata"].(object)["name"] = strings.Repeat("n", 63)
		for _, v := range names(items(mutate(t, rules(t, admission.Config{Profile: profile}), p)["spec"], "volumes")) {
			if len(v) > 63 {
				t.Errorf("%s: volume name %s", profile, v)
			}
		}
	}
}

func TestAuthorityHosts(t *testing.T) {
	for env, want := range map[string]string{
		"": authority, "AzurePublicCloud": authority, "AZUREPUBLICCLOUD": authority, "AzureUSGovernmentCloud": "https://login.microsoftonline.us/",
		"AzureChinaCloud": "https://login.chinacloudapi.cn/", "AzureGermanCloud": "https://login.microsoftonline.de/",
	} {
		if got, err := admission.AuthorityHost(env); err != nil || got != want {
			t.Errorf("%s: %s %v", env, got, err)
		}
	}
	if _, err := admission.AuthorityHost("invalid"); err == nil || !strings.Contains(err.Error(), "invalid") {
		t.Errorf("an unknown cloud: %v", err)
	}
	p := mutate(t, rules(t, admission.Config{AuthorityHost: "https://login.podkey.example:8443"}), pod(t, nil, oneApp))
	if e := environ(app(t, p)); !slices.Contains(e, "AZURE_AUTHORITY_HOST=https://login.podkey.example:8443/") {
		t.Errorf("no closing slash: %v", e)
	}
}

// Answers are what the API server decodes strictly.
func TestAnswersAreJSON(t *testing.T) {
	res := rules(t, admission.Config{}).Mutate(context.Background(), []byte(strings.Replace(string(review(t, object{})), "u-1", `\"\u2028<`, 1)), known.lookup, nil)
	if !json.Valid(res.Body) || decode(t, res).Response.UID != "\"\u2028<" {
		t.Errorf("%s", res.Body)
	}
}
