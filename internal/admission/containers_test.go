package admission_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/admission"
	"github.com/podkey/podkey/internal/pki"
)

// ca is a certificate authority's certificate.
var ca = func() string {
	made, err := pki.NewCA("admission", time.Now())
	if err != nil {
		panic(err)
	}
	return string(made.CertPEM())
}()

// inject is the annotations of a pod that wants a proxy.
func inject(more ...string) map[string]string {
	m := map[string]string{keys + "inject-proxy-sidecar": "true"}
	for i := 0; i < len(more); i += 2 {
		m[keys+more[i]] = more[i+1]
	}
	return m
}

func both(p object) (initial, regular list) {
	return items(p["spec"], "initContainers"), items(p["spec"], "containers")
}

func TestProxyIsInjected(t *testing.T) {
	const withInit = `"initContainers":[{"name":"prepare"}],` + oneApp
	for name, tc := range map[string]struct {
		native, trust    bool
		spec             string
		more             []string
		initial, regular []string
	}{
		"native":                  {true, false, oneApp, nil, []string{"azwi-proxy", "azwi-proxy-init"}, []string{"app"}},
		"native, init containers": {true, false, withInit, nil, []string{"azwi-proxy", "azwi-proxy-init", "prepare"}, []string{"app"}},
		"native, trust":           {true, true, withInit, nil, []string{"podkey-trust", "azwi-proxy", "azwi-proxy-init", "prepare"}, []string{"app"}},
		"older":                   {false, false, oneApp, nil, []string{"azwi-proxy-init"}, []string{"azwi-proxy", "app"}},
		"older, init containers":  {false, false, withInit, nil, []string{"prepare", "azwi-proxy-init"}, []string{"azwi-proxy", "app"}},
		"older, trust":            {false, true, oneApp, nil, []string{"podkey-trust", "azwi-proxy-init"}, []string{"azwi-proxy", "app"}},
		"older, trust and init":   {false, true, withInit, nil, []string{"podkey-trust", "prepare", "azwi-proxy-init"}, []string{"azwi-proxy", "app"}},
		"app service":             {true, false, withInit, []string{"proxy-protocol", "AppService"}, []string{"azwi-proxy", "prepare"}, []string{"app"}},
		"both there": {true, false, `"initContainers":[{"name":"azwi-proxy"},{"name":"azwi-proxy-init"}],` + oneApp, nil,
			[]string{"azwi-proxy", "azwi-proxy-init"}, []string{"app"}},
		"one there": {true, false, `"initContainers":[{"name":"a"},{"name":"azwi-proxy"},{"name":"b"}],` + oneApp, nil,
			[]string{"a", "azwi-proxy", "azwi-proxy-init", "b"}, []string{"app"}},
		"there as a container": {true, false, `"containers":[{"name":"app"},{"name":"azwi-proxy"}]`, nil,
			[]string{"azwi-proxy-init"}, []string{"app", "azwi-proxy"}},
		"older, there": {false, false, `"initContainers":[{"name":"azwi-proxy-init"}],"containers":[{"name":"app"},{"name":"azwi-proxy"}]`, nil,
			[]string{"azwi-proxy-init"}, []string{"app", "azwi-proxy"}},
		"trust there": {true, true, `"initContainers":[{"name":"mesh"},{"name":"podkey-trust"},{"name":"x"}],` + oneApp, nil,
			[]string{"mesh", "podkey-trust", "azwi-proxy", "azwi-proxy-init", "x"}, []string{"app"}},
		"no containers": {false, false, `"initContainers":null`, nil, []string{"azwi-proxy-init"}, []string{"azwi-proxy"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := admission.Config{NativeSidecars: tc.native}
			if tc.trust {
				c.Trust = &admission.Trust{CA: ca}
			}
			p := mutate(t, rules(t, c), pod(t, inject(tc.more...), tc.spec))
			initial, regular := both(p)
			equal(t, "init containers", names(initial), tc.initial)
			equal(t, "containers", names(regular), tc.regular)
			if strings.Contains(tc.spec, "azwi-proxy") {
				return
			}
			all := slices.Concat(initial, regular)
			proxy := named(t, all, "azwi-proxy")
			if (proxy["restartPolicy"] == "Always") != tc.native {
				t.Errorf("restart policy %v", proxy["restartPolicy"])
			}
			for _, v := range fourVariables {
				if !slices.Contains(environ(proxy), v) {
					t.Errorf("the proxy lacks %s", v)
				}
			}
			if !slices.Contains(mounts(proxy), classicMount) {
				t.Error("the proxy lacks the token")
			}
		})
	}
}

func TestProxyContainers(t *testing.T) {
	c := admission.Config{NativeSidecars: true, LogLevel: "debug", Images: admission.Images{Proxy: "p:1", ProxyInit: "i:1", PullPolicy: "Always", Binary: "/bin/podkey"}}
	initial, _ := both(mutate(t, rules(t, c), pod(t, inject("proxy-sidecar-port", "8080"), oneApp)))
	proxy, redirect := named(t, initial, "azwi-proxy"), named(t, initial, "azwi-proxy-init")
	for k, want := range map[string]string{
		"image": `"p:1"`, "imagePullPolicy": `"Always"`, "args": `["proxy","--proxy-port=8080","--log-level=debug"]`, "ports": `[{"containerPort":8080}]`,
		"lifecycle":       `{"postStart":{"exec":{"command":["/bin/podkey","proxy","--probe","--proxy-port=8080","--log-level=debug"]}}}`,
		"securityContext": `{"allowPrivilegeEscalation":false,"privileged":false,"capabilities":{"drop":["ALL"]},"readOnlyRootFilesystem":true,"runAsNonRoot":true,"runAsUser":1501,"seccompProfile":{"type":"RuntimeDefault"}}`,
	} {
		equal(t, k, proxy[k], parse(t, want))
	}
	for k, want := range map[string]string{
		"image": `"i:1"`, "args": `["proxy-init"]`, "env": `[{"name":"PROXY_PORT","value":"8080"}]`, "volumeMounts": `null`,
		"securityContext": `{"allowPrivilegeEscalation":false,"privileged":false,"capabilities":{"add":["NET_ADMIN"],"drop":["ALL"]},"readOnlyRootFilesystem":true,"runAsNonRoot":false,"runAsUser":0,"seccompProfile":{"type":"RuntimeDefault"}}`,
	} {
		equal(t, k, redirect[k], parse(t, want))
	}
}

func TestProxyIsWanted(t *testing.T) {
	for name, tc := range map[string]struct {
		annotations map[string]string
		spec        string
		want        bool
	}{
		"no annotations":    {nil, oneApp, false},
		"another":           {map[string]string{"x": "true", keys + "proxy-sidecar-port": "invalid"}, oneApp, false},
		"true":              {inject(), oneApp, true},
		"empty":             {inject("inject-proxy-sidecar", ""), oneApp, true},
		"any value":         {inject("inject-proxy-sidecar", "yes"), oneApp, true},
		"false":             {inject("inject-proxy-sidecar", "False"), oneApp, false},
		"false, host":       {inject("inject-proxy-sidecar", "false"), `"hostNetwork":true,` + oneApp, false},
		"Windows":           {inject(), `"os":{"name":"windows"},` + oneApp, false},
		"Windows, selector": {inject(), `"nodeSelector":{"kubernetes.io/os":"windows"},` + oneApp, false},
		"Windows, host":     {inject(), `"hostNetwork":true,"os":{"name":"windows"},` + oneApp, false},
		"Linux":             {inject(), `"os":{"name":"linux"},` + oneApp, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, native := range []bool{false, true} {
				p := mutate(t, rules(t, admission.Config{NativeSidecars: native}), pod(t, tc.annotations, tc.spec))
				initial, regular := both(p)
				if got := slices.Contains(names(slices.Concat(initial, regular)), "azwi-proxy"); got != tc.want {
					t.Errorf("injected: %t", got)
				}
				equal(t, "environment", environ(app(t, p)), fourVariables)
				equal(t, "mounts", mounts(app(t, p)), []string{classicMount})
			}
		})
	}
}

func TestProxyIsRefused(t *testing.T) {
	r := rules(t, admission.Config{})
	refuse(t, r, pod(t, inject(), `"hostNetwork":true,`+oneApp), admission.BadProxy, "hostNetwork is set to true, cannot inject proxy sidecar", keys+"inject-proxy-sidecar")
	for port, want := range map[string]string{
		"invalid":    `failed to parse proxy sidecar port: strconv.ParseInt: parsing "invalid": invalid syntax`,
		"":           `failed to parse proxy sidecar port: strconv.ParseInt: parsing "": invalid syntax`,
		"4294967296": `failed to parse proxy sidecar port: strconv.ParseInt: parsing "4294967296": value out of range`,
		"0":          "failed to parse proxy sidecar port: 0 is not between 1 and 65535",
		"65536":      "failed to parse proxy sidecar port: 65536 is not",
		"-1":         "failed to parse proxy sidecar port: -1 is not",
	} {
		refuse(t, r, pod(t, inject("proxy-sidecar-port", port), oneApp), admission.BadProxy, want, "annotation "+keys+"proxy-sidecar-port", "pod shop/web")
	}
	refuse(t, r, pod(t, inject("proxy-protocol", "http"), oneApp), admission.BadProxy, keys+"proxy-protocol", `"http" is neither imds nor appservice`)
	bare, err := admission.New(admission.Config{TenantID: tenantID})
	if err != nil {
		t.Fatal(err)
	}
	refuse(t, bare, pod(t, inject(), oneApp), admission.BadProxy, "image")
}

func TestAppService(t *testing.T) {
	p := mutate(t, rules(t, admission.Config{NativeSidecars: true}), pod(t, inject("proxy-protocol", "appservice", "proxy-sidecar-port", "9000"), oneApp))
	equal(t, "environment", environ(app(t, p)), append(slices.Clone(fourVariables),
		"IDENTITY_ENDPOINT=http://127.0.0.1:9000/msi/token", "IDENTITY_HEADER=<metadata.uid>"))
	initial, _ := both(p)
	proxy := named(t, initial, "azwi-proxy")
	equal(t, "proxy", environ(proxy), append(slices.Clone(fourVariables), "POD_NAME=<metadata.name>", "POD_NAMESPACE=<metadata.namespace>",
		"NODE_NAME=<spec.nodeName>", "IDENTITY_HEADER=<metadata.uid>"))
	if args := proxy["args"].(list); args[len(args)-1] != "--protocol=appservice" {
		t.Errorf("arguments %v", args)
	}
}

// A proxy without token would keep the pod from starting, so it is not skipped.
func TestSkippedProxy(t *testing.T) {
	for _, native := range []bool{false, true} {
		p := mutate(t, rules(t, admission.Config{NativeSidecars: native}), pod(t, inject("skip-containers", "azwi-proxy;azwi-proxy-init"), oneApp))
		initial, regular := both(p)
		if proxy := named(t, slices.Concat(initial, regular), "azwi-proxy"); !slices.Contains(mounts(proxy), classicMount) {
			t.Error("the proxy lacks the token")
		}
	}
	// Without the annotation it is a container like any other.
	p := mutate(t, rules(t, admission.Config{}), pod(t, map[string]string{keys + "skip-containers": "azwi-proxy"}, `"containers":[{"name":"azwi-proxy"}]`))
	if c := items(p["spec"], "containers")[0]; len(environ(c)) != 0 {
		t.Errorf("it was not skipped: %v", c)
	}
}

func TestNativeSidecars(t *testing.T) {
	for v, want := range map[[2]string]bool{
		{"1", "32"}: true, {"2", "0"}: true, {"1", "33"}: true, {"1", "31"}: false, {"0", "99"}: false,
		{"1", "32+"}: true, {"1", "31+"}: false, {"", ""}: false, {"1", "x"}: false,
	} {
		if got := admission.NativeSidecars(v[0], v[1]); got != want {
			t.Errorf("%v: %t", v, got)
		}
	}
}

const trustFile = "/var/run/secrets/podkey/trust/ca-bundle.pem"

func TestTrust(t *testing.T) {
	r := rules(t, admission.Config{Trust: &admission.Trust{CA: ca}, Extra: []admission.EnvVar{{Name: "AZURE_REGIONAL_AUTHORITY_NAME", Value: "podkey"}}})
	p := mutate(t, r, pod(t, nil, `"initContainers":[{"name":"prepare"}],`+oneApp))
	java := "-Djavax.net.ssl.trustStore=/var/run/secrets/podkey/trust/truststore.p12 -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit"
	want := append(slices.Clone(fourVariables), "AZURE_REGIONAL_AUTHORITY_NAME=podkey",
		"SSL_CERT_FILE="+trustFile, "REQUESTS_CA_BUNDLE="+trustFile, "CURL_CA_BUNDLE="+trustFile, "NODE_EXTRA_CA_CERTS="+trustFile, "JAVA_TOOL_OPTIONS="+java)
	initial, _ := both(p)
	for _, c := range []object{app(t, p), named(t, initial, "prepare")} {
		equal(t, "environment", environ(c), want)
		equal(t, "mounts", mounts(c), []string{classicMount, "podkey-trust:/var/run/secrets/podkey/trust:ro"})
	}
	equal(t, "volume", named(t, items(p["spec"], "volumes"), "podkey-trust"), parse(t, `{"name":"podkey-trust","emptyDir":{"medium":"Memory","sizeLimit":"4Mi"}}`))
	writer := initial[0].(object)
	for k, v := range map[string]string{
		"name": `"podkey-trust"`, "image": `"podkey:test"`, "args": `["trust","--to","/var/run/secrets/podkey/trust"]`,
		"volumeMounts":    `[{"name":"podkey-trust","mountPath":"/var/run/secrets/podkey/trust"}]`,
		"resources":       `{"limits":{"cpu":"500m","memory":"64Mi"},"requests":{"cpu":"100m","memory":"64Mi"}}`,
		"securityContext": `{"allowPrivilegeEscalation":false,"privileged":false,"capabilities":{"drop":["ALL"]},"readOnlyRootFilesystem":true,"runAsNonRoot":true,"runAsUser":65532,"seccompProfile":{"type":"RuntimeDefault"}}`,
	} {
		equal(t, k, writer[k], parse(t, v))
	}
	equal(t, "writer's environment", environ(writer), []string{"PODKEY_CA=" + ca})
}

func TestTrustThatTheUserHas(t *testing.T) {
	r := rules(t, admission.Config{Trust: &admission.Trust{CA: ca}, Extra: []admission.EnvVar{{Name: "X", Value: "1"}}})
	p := mutate(t, r, pod(t, nil, `"containers":[{"name":"app","env":[{"name":"JAVA_TOOL_OPTIONS","value":"-Xmx1g"},{"name":"SSL_CERT_FILE","value":"/mine"},
		{"name":"AZURE_AUTHORITY_HOST","value":"https://login.microsoftonline.us/"}]}]`))
	env := environ(app(t, p))
	if !slices.Contains(env, "JAVA_TOOL_OPTIONS=-Xmx1g") || !slices.Contains(env, "SSL_CERT_FILE=/mine") || slices.Contains(env, "X=1") || len(env) != 9 {
		t.Errorf("environment: %v", env)
	}
	refuse(t, r, pod(t, nil, `"containers":[{"name":"app","volumeMounts":[{"name":"v","mountPath":"/var/run/secrets/podkey/trust"}]}]`), admission.BadMount,
		`container "app" mounts volume "v" at /var/run/secrets/podkey/trust`)
	over := mutate(t, r, pod(t, nil, oneApp+`,"volumes":[{"name":"podkey-trust","configMap":{"name":"forged"}}]`))
	if v := named(t, items(over["spec"], "volumes"), "podkey-trust"); v["configMap"] != nil {
		t.Errorf("a volume under our name was kept: %v", v)
	}
}

func TestNoTrustOnWindows(t *testing.T) {
	r := rules(t, admission.Config{Trust: &admission.Trust{CA: ca}})
	p := mutate(t, r, pod(t, nil, `"os":{"name":"windows"},`+oneApp))
	initial, _ := both(p)
	equal(t, "init containers", names(initial), []string{})
	equal(t, "volumes", names(items(p["spec"], "volumes")), []string{"azure-identity-token"})
	equal(t, "environment", environ(app(t, p)), fourVariables)
}

// What is injected does not change the pod's class of service, and starts
// quickly where that costs nothing.
func TestResources(t *testing.T) {
	const (
		equalLimits = `"resources":{"limits":{"cpu":"2","memory":"1Gi"}}`
		bothEqual   = `"resources":{"limits":{"cpu":"2","memory":"1Gi"},"requests":{"cpu":"2","memory":"1Gi"}}`
		lessMemory  = `"resources":{"limits":{"cpu":"2","memory":"1Gi"},"requests":{"cpu":"2","memory":"1Mi"}}`
		lessCPU     = `"resources":{"limits":{"cpu":"2","memory":"1Gi"},"requests":{"cpu":"1"}}`
		noMemory    = `"resources":{"limits":{"cpu":"2"}}`
	)
	burst, small, large := "100m 500m", "100m 100m", "500m 500m"
	for name, tc := range map[string]struct{ spec, helper, proxy string }{
		"none":                        {oneApp, burst, burst},
		"guaranteed by limits":        {`"containers":[{"name":"app",` + equalLimits + `}]`, large, small},
		"guaranteed":                  {`"containers":[{"name":"app",` + bothEqual + `}],"initContainers":[{"name":"i",` + equalLimits + `}]`, large, small},
		"one container without":       {`"containers":[{"name":"app",` + bothEqual + `},{"name":"b"}]`, burst, burst},
		"init container without":      {`"containers":[{"name":"app",` + bothEqual + `}],"initContainers":[{"name":"i"}]`, burst, burst},
		"smaller request of memory":   {`"containers":[{"name":"app",` + lessMemory + `}]`, burst, burst},
		"smaller request of CPU":      {`"containers":[{"name":"app",` + lessCPU + `}]`, burst, burst},
		"no limit of memory":          {`"containers":[{"name":"app",` + noMemory + `}]`, burst, burst},
		"of the pod as a whole":       {`"resources":{"requests":{"cpu":"300m"}},` + oneApp, small, small},
		"null for the pod as a whole": {`"resources":null,` + oneApp, burst, burst},
	} {
		for _, native := range []bool{true, false} {
			p := mutate(t, rules(t, admission.Config{NativeSidecars: native, Trust: &admission.Trust{CA: ca}}), pod(t, inject(), tc.spec))
			initial, regular := both(p)
			for container, want := range map[string]string{"podkey-trust": tc.helper, "azwi-proxy": tc.proxy, "azwi-proxy-init": tc.helper} {
				r := named(t, slices.Concat(initial, regular), container)["resources"].(object)
				limits, requests := r["limits"].(object), r["requests"].(object)
				if got := fmt.Sprint(requests["cpu"], " ", limits["cpu"]); got != want || requests["memory"] != "64Mi" || limits["memory"] != "64Mi" {
					t.Errorf("%s, native %t: %s has %v, want %s", name, native, container, r, want)
				}
			}
		}
	}
}
