package workload_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http/httpproxy"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/podkey/podkey/internal/pki"
	"github.com/podkey/podkey/internal/proxy"
	"github.com/podkey/podkey/internal/workload"
)

func newCA(t testing.TB, name string) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// execEnv is ExecEnv with what a test does not care for filled in.
func execEnv(t testing.TB, o workload.ExecOptions) *workload.Env {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "exec")
	}
	if o.Proxy == "" {
		o.Proxy = "127.0.0.1:40123"
	}
	if o.CAs == nil {
		o.CAs = [][]byte{newCA(t, "own").CertPEM()}
	}
	e, err := workload.ExecEnv(o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// vars is an environment as a map.
func vars(t testing.TB, env []string) map[string]string {
	t.Helper()
	m := map[string]string{}
	for _, v := range env {
		name, value, ok := strings.Cut(v, "=")
		if _, twice := m[name]; twice || !ok {
			t.Errorf("%q is there twice or no variable", v)
		}
		m[name] = value
	}
	return m
}

func TestExecEnv(t *testing.T) {
	base := t.TempDir()
	dir, azure := filepath.Join(base, "exec"), filepath.Join(base, "data", "azure")
	e := execEnv(t, workload.ExecOptions{Dir: dir, AzureConfigDir: azure})
	bundle, store := filepath.Join(dir, "ca-bundle.pem"), filepath.Join(dir, "truststore.p12")
	direct := "localhost,127.0.0.1,::1,169.254.169.254,127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
	java := "-Djavax.net.ssl.trustStore=" + store +
		" -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit" +
		" -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=40123" +
		" -Dhttp.nonProxyHosts=localhost|127.*|[::1]|169.254.169.254|10.*|192.168.*" +
		"|172.16.*|172.17.*|172.18.*|172.19.*|172.20.*|172.21.*|172.22.*|172.23.*" +
		"|172.24.*|172.25.*|172.26.*|172.27.*|172.28.*|172.29.*|172.30.*|172.31.*"
	want := map[string]string{
		"HTTPS_PROXY":                    "http://127.0.0.1:40123",
		"https_proxy":                    "http://127.0.0.1:40123",
		"NO_PROXY":                       direct,
		"no_proxy":                       direct,
		"SSL_CERT_FILE":                  bundle,
		"REQUESTS_CA_BUNDLE":             bundle,
		"CURL_CA_BUNDLE":                 bundle,
		"NODE_EXTRA_CA_CERTS":            bundle,
		"NODE_USE_ENV_PROXY":             "1",
		"JAVA_TOOL_OPTIONS":              java,
		"AZURE_CONFIG_DIR":               azure,
		"AZD_CONFIG_DIR":                 filepath.Join(azure, "azd"),
		"AZURE_CORE_COLLECT_TELEMETRY":   "no",
		"AZURE_DEV_COLLECT_TELEMETRY":    "no",
		"AZURE_CORE_USE_MSAL_HTTP_CACHE": "no",
	}
	if d := cmp.Diff(want, vars(t, e.Set)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for path, mode := range map[string]os.FileMode{
		dir: os.ModeDir | 0o700, azure: os.ModeDir | 0o700, filepath.Join(azure, "azd"): os.ModeDir | 0o700,
		bundle: 0o600, store: 0o600,
	} {
		if fi, err := os.Stat(path); err != nil || fi.Mode() != mode {
			t.Errorf("%s: mode %v and %v, want %v", path, fi.Mode(), err, mode)
		}
	}
	// A second command in the same directories finds nothing wrong with them.
	execEnv(t, workload.ExecOptions{Dir: dir, AzureConfigDir: azure})

	own := execEnv(t, workload.ExecOptions{OwnDomain: "podkey.localhost:8443"})
	if got := vars(t, own.Set)["NO_PROXY"]; got != strings.TrimPrefix(direct, "localhost,") {
		t.Errorf("with own names below localhost, NO_PROXY is %s", got)
	}
	elsewhere := execEnv(t, workload.ExecOptions{OwnDomain: "notlocalhost"})
	if got := vars(t, elsewhere.Set)["NO_PROXY"]; got != direct {
		t.Errorf("with own names elsewhere, NO_PROXY is %s", got)
	}
}

// The two trust files hold our CAs, the machine's roots and whatever the
// parent's own variables named.
func TestExecEnvTrust(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, newCA(t, name).CertPEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	t.Setenv("SSL_CERT_FILE", file("machine"))
	t.Setenv("SSL_CERT_DIR", "")
	bundleDir := filepath.Join(dir, "d")
	if err := os.Mkdir(bundleDir, 0o700); err != nil {
		t.Fatal(err)
	}
	file("d/curl")
	e := execEnv(t, workload.ExecOptions{
		CAs: [][]byte{newCA(t, "own").CertPEM(), newCA(t, "azure").CertPEM()},
		Parent: []string{
			"REQUESTS_CA_BUNDLE=" + file("requests"),
			"CURL_CA_BUNDLE=" + bundleDir,
			"NODE_EXTRA_CA_CERTS=" + file("node"),
		},
	})
	set := vars(t, e.Set)
	want := []string{"own", "azure", "machine", "requests", "curl", "node"}
	b, err := os.ReadFile(set["SSL_CERT_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, commonNames(pki.Certificates(b))); d != "" {
		t.Errorf("bundle (-want +got):\n%s", strings.ReplaceAll(d, "d/", ""))
	}
	store := strings.Fields(strings.TrimPrefix(set["JAVA_TOOL_OPTIONS"], "-Djavax.net.ssl.trustStore="))[0]
	if b, err = os.ReadFile(store); err != nil {
		t.Fatal(err)
	}
	certs, err := pkcs12.DecodeTrustStore(b, "changeit")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, commonNames(certs)); d != "" {
		t.Errorf("trust store (-want +got):\n%s", d)
	}
}

func commonNames(certs []*x509.Certificate) []string {
	var out []string
	for _, c := range certs {
		out = append(out, filepath.Base(c.Subject.CommonName))
	}
	return out
}

func TestExecEnvRefuses(t *testing.T) {
	ca := [][]byte{newCA(t, "own").CertPEM()}
	dir := filepath.Join(t.TempDir(), "d")
	open := t.TempDir()
	if err := os.Chmod(open, 0o770); err != nil {
		t.Fatal(err)
	}
	quotes := filepath.Join(t.TempDir(), `a'b"c`)
	for name, o := range map[string]workload.ExecOptions{
		"no proxy":               {Dir: dir, CAs: ca},
		"proxy without port":     {Dir: dir, CAs: ca, Proxy: "127.0.0.1"},
		"proxy with port 0":      {Dir: dir, CAs: ca, Proxy: "127.0.0.1:0"},
		"proxy elsewhere":        {Dir: dir, CAs: ca, Proxy: "192.0.2.1:3128"},
		"proxy by name":          {Dir: dir, CAs: ca, Proxy: "localhost:3128"},
		"no CA":                  {Dir: dir, Proxy: "127.0.0.1:1"},
		"a CA that is none":      {Dir: dir, Proxy: "127.0.0.1:1", CAs: [][]byte{ca[0], []byte("x")}},
		"no directory":           {CAs: ca, Proxy: "127.0.0.1:1"},
		"open directory":         {Dir: open, CAs: ca, Proxy: "127.0.0.1:1"},
		"open az directory":      {Dir: dir, AzureConfigDir: open, CAs: ca, Proxy: "127.0.0.1:1"},
		"parent's missing roots": {Dir: dir, CAs: ca, Proxy: "127.0.0.1:1", Parent: []string{"NODE_EXTRA_CA_CERTS=/nowhere.pem"}},
		"path no JVM can read":   {Dir: quotes, CAs: ca, Proxy: "127.0.0.1:1"},
	} {
		if _, err := workload.ExecEnv(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The real Azure's credentials in the person's shell must not reach a child
// that talks to Podkey, nor lead it past the identity that it is to have.
func TestCredentialsAreNotInherited(t *testing.T) {
	secret := []string{
		"AZURE_CLIENT_ID=x", "AZURE_TENANT_ID=x", "AZURE_CLIENT_SECRET=x", "AZURE_CLIENT_CERTIFICATE_PATH=x",
		"AZURE_CLIENT_CERTIFICATE_PASSWORD=x", "AZURE_CLIENT_SEND_CERTIFICATE_CHAIN=x", "AZURE_USERNAME=x", "AZURE_PASSWORD=x",
		"AZURE_FEDERATED_TOKEN_FILE=x", "AZURE_AUTHORITY_HOST=x", "AZURE_REGIONAL_AUTHORITY_NAME=x",
		"AZURE_TOKEN_CREDENTIALS=dev", "AZURE_ADDITIONALLY_ALLOWED_TENANTS=*", "AZURE_POD_IDENTITY_AUTHORITY_HOST=x",
		"AZURE_KUBERNETES_TOKEN_PROXY=x", "AZURE_KUBERNETES_SNI_NAME=x", "AZURE_KUBERNETES_CA_FILE=x", "AZURE_KUBERNETES_CA_DATA=x",
		"IDENTITY_ENDPOINT=x", "IDENTITY_HEADER=x", "IDENTITY_SERVER_THUMBPRINT=x", "IMDS_ENDPOINT=x", "MSI_ENDPOINT=x", "MSI_SECRET=x",
		"MSAL_FORCE_REGION=x", "ARM_CLIENT_SECRET=x", "ARM_OIDC_TOKEN=x", "ARM_CLOUD_METADATA_URL=x", "AZURE_CLOUD_NAME=x",
		"HTTP_PROXY=x", "http_proxy=x", "ALL_PROXY=x", "all_proxy=x", "All_Proxy=x", "Https_Proxy=x", "No_Proxy=x",
	}
	kept := []string{"PATH=/bin", "HOME=/h", "AZURE_SUBSCRIPTION_ID=s", "AZURE_CORE_OUTPUT=table", "NO_COLOR=1", "EMPTY=", "SSL_CERT_DIR=/c"}
	parent := slices.Concat(secret, kept, []string{"HTTPS_PROXY=old", "NO_PROXY=*", "no_proxy=*", "SSL_CERT_FILE=/old", "AZURE_CONFIG_DIR=/old"})

	e := execEnv(t, workload.ExecOptions{Parent: parent})
	got := vars(t, e.Apply(parent))
	for _, v := range secret {
		name, _, _ := strings.Cut(v, "=")
		if _, ok := got[name]; ok {
			t.Errorf("%s is passed on", name)
		}
		if !slices.Contains(e.Unset, name) {
			t.Errorf("%s is not named as removed", name)
		}
	}
	if len(e.Unset) != len(secret) || !slices.IsSorted(e.Unset) {
		t.Errorf("%d variables removed, want %d, sorted: %v", len(e.Unset), len(secret), e.Unset)
	}
	for _, v := range kept {
		name, value, _ := strings.Cut(v, "=")
		if g, ok := got[name]; !ok || g != value {
			t.Errorf("%s is %q", name, g)
		}
	}
	for name, value := range vars(t, e.Set) {
		if got[name] != value {
			t.Errorf("%s is %q, not what was set", name, got[name])
		}
	}

	e = execEnv(t, workload.ExecOptions{Parent: parent, Keep: []string{"AZURE_CLIENT_SECRET"}})
	if got := vars(t, e.Apply(parent)); got["AZURE_CLIENT_SECRET"] != "x" || got["AZURE_CLIENT_ID"] != "" {
		t.Error("Keep keeps too little or too much")
	}

	wi := e.With(workload.WorkloadEnv("client", "tenant", "/t", "https://login.microsoftonline.com")...)
	got = vars(t, wi.Apply(parent))
	if got["AZURE_CLIENT_ID"] != "client" || got["AZURE_AUTHORITY_HOST"] != "https://login.microsoftonline.com/" {
		t.Errorf("what is set after a removal is not there: %v", got)
	}
}

func TestApply(t *testing.T) {
	roomy := append(make([]string, 0, 8), "B=2", "C=3", "B=4")
	e := &workload.Env{Set: roomy, Unset: []string{"A", "C", "NONE"}}
	got := e.Apply([]string{"A=1", "B=1", "C=1", "D=a=b", "D=c", "=C:=x", "broken", "AA=1"})
	if d := cmp.Diff([]string{"B=4", "D=c", "AA=1", "C=3"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"B=2", "C=3", "B=4"}, e.Set); d != "" {
		t.Errorf("Apply changed Set:\n%s", d)
	}
	a, b := e.With("X=1"), e.With("X=2")
	if a.Set[3] != "X=1" || b.Set[3] != "X=2" || len(e.Set) != 3 {
		t.Error("two copies share their variables")
	}
}

func TestWorkloadEnv(t *testing.T) {
	want := []string{
		"AZURE_CLIENT_ID=c", "AZURE_TENANT_ID=t",
		"AZURE_FEDERATED_TOKEN_FILE=/var/run/secrets/azure/tokens/azure-identity-token",
		"AZURE_AUTHORITY_HOST=https://login.microsoftonline.com/",
	}
	for _, host := range []string{"https://login.microsoftonline.com", "https://login.microsoftonline.com/"} {
		got := workload.WorkloadEnv("c", "t", "/var/run/secrets/azure/tokens/azure-identity-token", host)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", host, d)
		}
	}
	if d := cmp.Diff([]string{"AZURE_TENANT_ID=t"}, workload.WorkloadEnv("", "t", "", "")); d != "" {
		t.Errorf("empty values (-want +got):\n%s", d)
	}
}

// By Go's reading of NO_PROXY, the strictest of the clients' and the only one
// that is a library.
func TestNothingOfAzureBypassesTheProxy(t *testing.T) {
	for _, domain := range []string{"", "podkey.localhost:8443"} {
		set := vars(t, execEnv(t, workload.ExecOptions{OwnDomain: domain}).Set)
		cfg := &httpproxy.Config{HTTPSProxy: set["HTTPS_PROXY"], NoProxy: set["NO_PROXY"]}
		proxyFor := cfg.ProxyFunc()
		for url, want := range map[string]bool{
			"https://login.microsoftonline.com/":                    true,
			"https://management.azure.com/":                         true,
			"https://graph.microsoft.com/":                          true,
			"https://kv1.vault.azure.net/":                          true,
			"https://www.example.com/":                              true,
			"https://127.example.com/":                              true,
			"https://8.8.8.8/":                                      true,
			"https://kv1.vault.podkey.localhost:8443/":              domain != "",
			"https://127.0.0.1:8443/":                               false,
			"https://127.3.2.1/":                                    false,
			"https://[::1]:8443/":                                   false,
			"https://10.96.0.1/":                                    false,
			"https://172.31.0.1/":                                   false,
			"https://172.32.0.1/":                                   true,
			"https://192.168.49.2:8443/":                            false,
			"https://localhost:5001/":                               false,
			"http://169.254.169.254/metadata/identity/oauth2/token": false,
			"http://www.example.com/":                               false,
			"http://127.0.0.1:40342/metadata/identity/oauth2/token?resource=https": false,
		} {
			req, err := http.NewRequest("GET", url, nil)
			if err != nil {
				t.Fatal(err)
			}
			p, err := proxyFor(req.URL)
			if got := p != nil; got != want || err != nil {
				t.Errorf("own domain %q: %s through the proxy: %v and %v, want %v", domain, url, got, err, want)
			}
		}
	}
}

func TestJavaOptionsAppendToTheParents(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b")
	e := execEnv(t, workload.ExecOptions{Dir: dir, Parent: []string{"JAVA_TOOL_OPTIONS=-Dold=1 -Dhttps.proxyHost=old"}})
	got := vars(t, e.Set)["JAVA_TOOL_OPTIONS"]
	if !strings.HasPrefix(got, `-Dold=1 -Dhttps.proxyHost=old -Djavax.net.ssl.trustStore="`+dir+`/truststore.p12" `) {
		t.Errorf("JAVA_TOOL_OPTIONS is %s", got)
	}
}

// The whole of it: an ordinary Go program, started by Run in the environment
// of ExecEnv, reaches a TLS server under Azure's names, trusts it, reaches
// plain HTTP beside it directly, and nothing else.
func TestChildReachesPodkeyUnderAzuresNames(t *testing.T) {
	ca := newCA(t, "Azure's names")
	src := pki.NewSource(ca, pki.Leaf{
		DNSNames: []string{"login.microsoftonline.com", "*.vault.azure.net"},
		IPs:      []net.IP{net.IPv4(127, 0, 0, 1)},
	}, nil)
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "podkey as %s%s", r.Host, r.URL.Path) },
		&tls.Config{GetCertificate: src.GetCertificate})
	plain := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "plain") }, nil)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := proxy.Proxy{
		Allow: func(host string, port int) bool {
			return port == 443 && (host == "login.microsoftonline.com" || strings.HasSuffix(host, ".vault.azure.net"))
		},
		Dial: func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", addr) },
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, ln) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	parent := slices.Concat(os.Environ(), []string{"NO_PROXY=*", "HTTP_PROXY=http://192.0.2.1:1", "SSL_CERT_DIR=" + t.TempDir()})
	e := execEnv(t, workload.ExecOptions{Proxy: ln.Addr().String(), CAs: [][]byte{ca.CertPEM()}, Parent: parent})
	var out strings.Builder
	code, err := workload.Run(t.Context(), workload.Command{
		Args: []string{os.Args[0],
			"https://login.microsoftonline.com/t/v2.0", "https://kv1.vault.azure.net/secrets/s",
			"http://" + plain + "/", "https://www.example.com/", "https://8.8.8.8/"},
		Env:    e.With(modeVar + "=get").Apply(parent),
		Stdout: &out,
		Stderr: os.Stderr,
	})
	if code != 0 || err != nil {
		t.Errorf("exit code %d and %v", code, err)
	}
	want := []string{
		"200 podkey as login.microsoftonline.com/t/v2.0",
		"200 podkey as kv1.vault.azure.net/secrets/s",
		"200 plain",
		`error: Get "https://www.example.com/": Forbidden: www.example.com:443 is not Podkey`,
		`error: Get "https://8.8.8.8/": Forbidden: 8.8.8.8:443 is not Podkey`,
	}
	if d := cmp.Diff(want, strings.Split(strings.TrimSpace(out.String()), "\n")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}

	// The trust is the child's alone.
	cmd := exec.Command(os.Args[0], "https://"+addr+"/")
	cmd.Env = mode("get")
	b, err := cmd.Output()
	if err != nil || !strings.Contains(string(b), "unknown authority") {
		t.Errorf("without the environment: %s, %v", b, err)
	}
}

// serve runs a server on loopback, with TLS if it is given a configuration.
func serve(t testing.TB, h http.HandlerFunc, c *tls.Config) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if c != nil {
		ln = tls.NewListener(ln, c)
	}
	srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return addr
}
