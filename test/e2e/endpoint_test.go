//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/image"
	"github.com/podkey/podkey/internal/pki"
	"github.com/podkey/podkey/test/lab"
)

const (
	bindingAudience = "api://AKSIdentityBinding"
	bindingSNI      = "a3kfq2wq5z7gd.ests.aks" // shaped as AKS makes it
	bindingRef      = "localhost/identity-binding:e2e"
)

// tokenProxy is the token endpoint inside of a cluster: one address for all,
// which knows by the name in the TLS handshake what is asked of it, and hands
// token requests on to the token service.
type tokenProxy struct {
	url, ca string

	mu      sync.Mutex
	answers []string // client id and status of each token request
}

func (x *world) tokenProxy(t *testing.T) *tokenProxy {
	t.Helper()
	now := time.Now()
	ca, err := pki.NewCA("token endpoint of the cluster", now)
	if err != nil {
		t.Fatal(err)
	}
	serving, err := ca.Issue(pki.Leaf{DNSNames: []string{bindingSNI}}, now)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(lab.Host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	p := &tokenProxy{url: "https://" + listener.Addr().String() + "/tokens", ca: string(ca.CertPEM())}
	type clientKey struct{}
	onward := &httputil.ReverseProxy{
		Transport: x.authority(t).Transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "https", Host: "login.microsoftonline.com"}) },
		ModifyResponse: func(resp *http.Response) error {
			if client, ok := resp.Request.Context().Value(clientKey{}).(string); ok {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.answers = append(p.answers, fmt.Sprint(client, " ", resp.StatusCode))
			}
			return nil
		},
	}
	server := httptest.NewUnstartedServer(http.StripPrefix("/tokens", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if form, err := url.ParseQuery(string(body)); err == nil && form.Has("client_assertion") {
			r = r.WithContext(context.WithValue(r.Context(), clientKey{}, form.Get("client_id")))
		}
		onward.ServeHTTP(rw, r)
	})))
	server.Listener.Close()
	server.Listener = listener
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{*serving},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello.ServerName != bindingSNI {
				return nil, fmt.Errorf("no cluster is named %q", hello.ServerName)
			}
			return nil, nil // go on with this one
		},
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return p
}

// asked is what came of the token requests of a client.
func (p *tokenProxy) asked(clientID string) (statuses []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.answers {
		if status, ok := strings.CutPrefix(a, clientID+" "); ok {
			statuses = append(statuses, status)
		}
	}
	return statuses
}

// TestIdentityBinding installs the webhook with a token endpoint inside of the
// cluster, whose certificate authority is in a ConfigMap or in a variable, and
// runs applications that sign in there. The token service itself is out of
// their reach. All pods are made by that webhook, so nothing else runs
// meanwhile.
//
// The third way to name an authority, a ClusterTrustBundle, is not in a
// Kubernetes of this version unless feature gates say so.
func TestIdentityBinding(t *testing.T) {
	program, err := image.Build(t.Context(), ".", "./testdata/identity-binding", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "identity-binding.tar")
	if err := image.WriteArchive(archive, bindingRef, image.Program(runtime.GOARCH, "identity-binding", program)); err != nil {
		t.Fatal(err)
	}
	if err := w.Load(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	// One identity for who asks for the endpoint, one for who does not.
	bound, plain := w.workload(t, "binding", setup{audience: bindingAudience}), w.workload(t, "no-binding", setup{})
	proxy := w.tokenProxy(t)
	quoted, err := json.Marshal(proxy.ca)
	if err != nil {
		t.Fatal(err)
	}
	w.apply(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: token-endpoint-ca, namespace: binding}\ndata: {ca.crt: "+string(quoted)+"}\n")

	w.restore(t)
	const asks = `azure.workload.identity/use-identity-binding: "true"`
	for _, c := range []struct {
		way, value string // of the chart
		authority  string // the variable that it makes
		source     string // and the part of the volume
	}{
		{"caConfigMap", "token-endpoint-ca", "AZURE_KUBERNETES_CA_FILE=" + tokenDir + "/ca-cert/ca.crt", "token-endpoint-ca: ca.crt to ca-cert/ca.crt, optional: false"},
		{"caData", proxy.ca, "AZURE_KUBERNETES_CA_DATA=" + proxy.ca, ""},
	} {
		t.Run(c.way, func(t *testing.T) {
			err := w.replace(t.Context(), map[string]any{"webhook": map[string]any{
				"drainSeconds": 1, "logLevel": "debug",
				"customTokenEndpoint": map[string]any{
					"annotationSuffix": "identity-binding", "audience": bindingAudience, "proxy": proxy.url, "sniName": bindingSNI, c.way: c.value,
				},
			}})
			if err != nil {
				t.Fatal(err)
			}
			before := len(proxy.asked(bound.clientID))
			pod := func(l workload, name, annotations, image, more string) string {
				return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[2]s, labels: {app: %[1]s, azure.workload.identity/use: "true"}, annotations: {%[3]s}}
spec:
  serviceAccountName: app
  restartPolicy: Never
  containers: [{name: app, image: %[4]s, env: [{name: KEYVAULT_URL, value: %[5]q}, {name: SECRET_NAME, value: password}%[6]s]}]
`, name, l.ns, annotations, image, l.vault, more)
			}
			// It asks for an application that knows managed identities only.
			const sidecar = `, azure.workload.identity/inject-proxy-sidecar: "true"`
			const managed = ", {name: AZURE_TOKEN_CREDENTIALS, value: ManagedIdentityCredential}"
			// Whoever goes to the token service itself finds nobody there.
			const nowhere = "spec:\n  hostAliases: [{ip: 127.0.0.1, hostnames: [login.microsoftonline.com, login.microsoft.com]}]\n"
			name := strings.ToLower(c.way)
			w.apply(t, strings.ReplaceAll(pod(bound, "asks-"+name, asks, bindingRef, "")+pod(bound, "sidecar-"+name, asks+sidecar, sampleRef, managed), "spec:\n", nowhere)+
				pod(plain, "plain-"+name, "", sampleRef, "")+pod(plain, "refuses-"+name, strings.Replace(asks, "true", "false", 1), bindingRef, ""))
			w.said(t, bound.ns, "asks-"+name, "app", bound.secret)
			w.said(t, bound.ns, "sidecar-"+name, "app", bound.secret)
			// The SDK's credential without the variables is an ordinary one.
			w.said(t, plain.ns, "plain-"+name, "app", plain.secret)
			w.said(t, plain.ns, "refuses-"+name, "app", plain.secret)

			usual := func(l workload) []string {
				return identity(l.clientID, w.server.Operator.TenantID, "KEYVAULT_URL="+l.vault, "SECRET_NAME=password")
			}
			with := append(usual(bound), "AZURE_KUBERNETES_TOKEN_PROXY="+proxy.url, "AZURE_KUBERNETES_SNI_NAME="+bindingSNI, c.authority)
			for _, p := range []struct {
				l      workload
				name   string
				env    []string
				token  string
				source string
			}{
				{bound, "asks-", with, strings.Replace(ordinary, "api://AzureADTokenExchange", bindingAudience, 1), c.source},
				{plain, "plain-", usual(plain), ordinary, ""},
				{plain, "refuses-", usual(plain), ordinary, ""},
			} {
				_, got := w.made(t, p.l.ns, p.name+name)
				if diff := cmp.Diff(p.env, got.env("app")); diff != "" {
					t.Errorf("%s%s: variables: want (-), are (+)\n%s", p.name, name, diff)
				}
				if diff := cmp.Diff([]string{p.token}, got.tokens()); diff != "" {
					t.Errorf("%s%s: tokens: want (-), are (+)\n%s", p.name, name, diff)
				}
				if diff := cmp.Diff([]string{tokenMount}, got.mounts("app")); diff != "" {
					t.Errorf("%s%s: mounts: want (-), are (+)\n%s", p.name, name, diff)
				}
				if diff := cmp.Diff(p.source, w.authorities(t, p.l.ns, p.name+name)); diff != "" {
					t.Errorf("%s%s: certificate authorities: want (-), are (+)\n%s", p.name, name, diff)
				}
			}
			// Who asked, and who did not, as the endpoint saw it.
			asked := proxy.asked(bound.clientID)[before:]
			if diff := cmp.Diff([]string{"200", "200"}, asked); diff != "" {
				t.Errorf("the endpoint's answers to the application and to the sidecar: want (-), are (+)\n%s", diff)
			}
			if asked := proxy.asked(plain.clientID); len(asked) != 0 {
				t.Errorf("the endpoint has answered who did not ask for it: %q", asked)
			}
		})
	}
}

// authorities are the certificate authorities in the volume of a pod's token.
func (x *world) authorities(t *testing.T, ns, pod string) string {
	t.Helper()
	b, err := x.Get(t.Context(), "/api/v1/namespaces/"+ns+"/pods/"+pod)
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Spec struct {
			Volumes []struct {
				Name      string
				Projected struct {
					Sources []struct {
						ConfigMap *struct {
							Name     string
							Items    []struct{ Key, Path string }
							Optional *bool
						}
					}
				}
			}
		}
	}
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range p.Spec.Volumes {
		for _, s := range v.Projected.Sources {
			if m := s.ConfigMap; m != nil && v.Name == "azure-identity-token" {
				for _, item := range m.Items {
					out = append(out, fmt.Sprintf("%s: %s to %s, optional: %t", m.Name, item.Key, item.Path, m.Optional != nil && *m.Optional))
				}
			}
		}
	}
	return strings.Join(out, "; ")
}
