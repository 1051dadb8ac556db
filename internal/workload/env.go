package workload

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/pki"
)

// ExecOptions is what the environment of a child is made from. Dir, Proxy and
// CAs must be set.
type ExecOptions struct {
	// Dir receives the trust files. It is made if it is missing, mode 0700,
	// and refused if others may enter it. The child needs it for as long as
	// it lives.
	Dir string

	// AzureConfigDir keeps what az and azd remember: sign-ins and settings.
	// It is one directory per server, because az's token cache does not tell
	// two servers on one host apart, and should outlive the command, or every
	// command would have to sign in again. Empty means a directory in Dir.
	AzureConfigDir string

	// Proxy is the address of the CONNECT proxy, such as 127.0.0.1:40123.
	Proxy string

	// CAs are the PEM certificates that the child must trust besides the
	// machine's own roots: those of Podkey's own names and of Azure's.
	CAs [][]byte

	// OwnDomain, with or without port, is set when the child will use
	// Podkey's own names, such as login.podkey.localhost. Few resolvers know
	// names below localhost, so these must go through the proxy too; the
	// price is that https://localhost goes there as well, in clients that
	// match NO_PROXY by suffix, and is refused. Empty otherwise.
	OwnDomain string

	// Parent is the environment that the child's is derived from:
	// os.Environ().
	Parent []string

	// Keep names variables of Parent that are passed on although they would
	// be removed, for someone who knows why.
	Keep []string
}

// Env is a change to an environment.
type Env struct {
	Set   []string // NAME=value; the last of a name counts
	Unset []string // names that are taken away, unless they are in Set
}

// With returns a copy that sets more.
func (e *Env) With(vars ...string) *Env {
	return &Env{Set: slices.Concat(e.Set, vars), Unset: e.Unset}
}

// Apply returns the environment that results from the change to parent. Each
// name occurs once.
func (e *Env) Apply(parent []string) []string {
	last := map[string]int{} // index in out
	var out []string
	add := func(v string) {
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return // not a variable: programs disagree on what it would be
		}
		if i, ok := last[name]; ok {
			out[i] = v
			return
		}
		last[name] = len(out)
		out = append(out, v)
	}
	for _, v := range parent {
		if name, _, _ := strings.Cut(v, "="); !slices.Contains(e.Unset, name) {
			add(v)
		}
	}
	for _, v := range e.Set {
		add(v)
	}
	return out
}

// ExecEnv writes the trust files and returns the variables that make clients
// use the proxy and trust the certificates.
//
//	variable                        read by
//	HTTPS_PROXY, https_proxy        Go; Python (requests, httpx, aiohttp of azure-core; so az); curl; .NET;
//	                                Ruby; the Azure SDK for JavaScript; Node with NODE_USE_ENV_PROXY
//	NO_PROXY, no_proxy              the same
//	SSL_CERT_FILE                   Go (not on macOS and Windows), OpenSSL and what uses its defaults:
//	                                Python's ssl, Ruby, .NET on Linux
//	REQUESTS_CA_BUNDLE              Python's requests, so az, azure-core and MSAL for Python
//	CURL_CA_BUNDLE                  curl; requests, if the former is not set
//	NODE_EXTRA_CA_CERTS             Node, in addition to the roots compiled in
//	NODE_USE_ENV_PROXY=1            Node 24, and 22 from 22.21: http, https and fetch use the proxy variables
//	JAVA_TOOL_OPTIONS               every JVM: trust store, https.proxyHost, https.proxyPort, http.nonProxyHosts
//	AZURE_CONFIG_DIR                az: sign-ins, token cache, settings
//	AZD_CONFIG_DIR                  azd: the same
//	AZURE_CORE_COLLECT_TELEMETRY    az: nothing to send where nothing can be reached
//	AZURE_DEV_COLLECT_TELEMETRY     azd: the same
//	AZURE_CORE_USE_MSAL_HTTP_CACHE  az: would repeat a refused sign-in from disk for a minute,
//	                                also after the mistake was put right
//
// HTTP_PROXY is not set and is taken away, so that plain HTTP goes where it
// would go without Podkey: to a service next door, or to a metadata endpoint.
// SSL_CERT_DIR is left as it is; what it holds is in the bundle as well, for
// the clients that read a file only. Each CA variable of the parent's is
// replaced by one bundle that still contains what it named.
//
// The variables that are taken away are listed with their reasons at removed.
func ExecEnv(o ExecOptions) (*Env, error) {
	addr, err := netip.ParseAddrPort(o.Proxy)
	if err != nil || !addr.Addr().IsLoopback() || addr.Port() == 0 {
		return nil, fmt.Errorf("proxy address %q is not a loopback address with a port", o.Proxy)
	}
	for _, ca := range o.CAs {
		if pki.Bundle(ca) == nil {
			return nil, fmt.Errorf("a CA to be trusted is not a PEM certificate")
		}
	}
	if len(o.CAs) == 0 {
		return nil, fmt.Errorf("no CA to be trusted")
	}
	// The child may change its directory: all paths are absolute.
	dir, err := filepath.Abs(o.Dir)
	if err != nil || o.Dir == "" {
		return nil, fmt.Errorf("directory %q for trust files: %w", o.Dir, err)
	}
	azure := filepath.Join(dir, "azure")
	if o.AzureConfigDir != "" {
		if azure, err = filepath.Abs(o.AzureConfigDir); err != nil {
			return nil, err
		}
	}
	azd := filepath.Join(azure, "azd")
	// az crashes if its directory does not exist in some modes; make both.
	for _, d := range []string{dir, azure, azd} {
		if err := privateDir(d); err != nil {
			return nil, err
		}
	}

	roots, err := parentRoots(o.Parent)
	if err != nil {
		return nil, err
	}
	bundle, store, err := pki.WriteTrust(dir, 0o600, slices.Concat(o.CAs, roots)...)
	if err != nil {
		return nil, err
	}
	java, err := javaOptions(lookup(o.Parent, "JAVA_TOOL_OPTIONS"), store, addr)
	if err != nil {
		return nil, err
	}

	proxy, direct := "http://"+addr.String(), strings.Join(noProxy(o.OwnDomain), ",")
	e := &Env{Set: []string{
		"HTTPS_PROXY=" + proxy,
		"https_proxy=" + proxy,
		"NO_PROXY=" + direct,
		"no_proxy=" + direct,
		"SSL_CERT_FILE=" + bundle,
		"REQUESTS_CA_BUNDLE=" + bundle,
		"CURL_CA_BUNDLE=" + bundle,
		"NODE_EXTRA_CA_CERTS=" + bundle,
		"NODE_USE_ENV_PROXY=1",
		"JAVA_TOOL_OPTIONS=" + java,
		"AZURE_CONFIG_DIR=" + azure,
		"AZD_CONFIG_DIR=" + azd,
		"AZURE_CORE_COLLECT_TELEMETRY=no",
		"AZURE_DEV_COLLECT_TELEMETRY=no",
		"AZURE_CORE_USE_MSAL_HTTP_CACHE=no",
	}}
	e.Unset = e.toRemove(o.Parent, o.Keep)
	return e, nil
}

// parentRoots are the roots that the parent's programs trust: the machine's,
// and those of the variables that are replaced.
func parentRoots(parent []string) ([][]byte, error) {
	system, err := pki.SystemRoots()
	if err != nil {
		return nil, err
	}
	roots := [][]byte{system}
	for _, name := range []string{"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"} {
		path := lookup(parent, name)
		if path == "" {
			continue
		}
		b, err := pki.RootsIn(path)
		if err != nil {
			return nil, fmt.Errorf("%s names roots that cannot be read, correct or unset it: %w", name, err)
		}
		roots = append(roots, b)
	}
	return roots, nil
}

// noProxy lists what bypasses the proxy: this machine and private networks, by
// address. None of these can be one of Azure's names, and the proxy would
// refuse them. The metadata endpoint is there for the clients that send plain
// HTTP through HTTPS_PROXY: the Azure SDK for JavaScript does.
//
// Clients that know no CIDR notation compare literally and go to the proxy.
func noProxy(ownDomain string) []string {
	list := []string{
		"127.0.0.1", "::1", "169.254.169.254",
		"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",
	}
	if !underLocalhost(ownDomain) {
		// Matches every name below localhost too, in most clients.
		list = slices.Insert(list, 0, "localhost")
	}
	return list
}

func underLocalhost(domain string) bool {
	host, _, _ := strings.Cut(strings.ToLower(domain), ":")
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// javaOptions are the JVM options, behind those that the parent had: of two
// settings of a property, the later counts. The list of direct hosts is not
// left to the JVM's default, which lacks the metadata endpoint, and the Azure
// SDK for Java applies https.proxyHost to plain HTTP as well.
func javaOptions(old, store string, proxy netip.AddrPort) (string, error) {
	quoted, err := javaQuote(store)
	if err != nil {
		return "", err
	}
	direct := []string{"localhost", "127.*", "[::1]", "169.254.169.254", "10.*", "192.168.*"}
	for i := 16; i < 32; i++ {
		direct = append(direct, fmt.Sprintf("172.%d.*", i))
	}
	opts := []string{
		"-Djavax.net.ssl.trustStore=" + quoted,
		"-Djavax.net.ssl.trustStoreType=PKCS12",
		"-Djavax.net.ssl.trustStorePassword=" + pki.TrustStorePassword,
		"-Dhttps.proxyHost=" + proxy.Addr().String(),
		fmt.Sprintf("-Dhttps.proxyPort=%d", proxy.Port()),
		"-Dhttp.nonProxyHosts=" + strings.Join(direct, "|"),
	}
	if old != "" {
		opts = slices.Insert(opts, 0, old)
	}
	return strings.Join(opts, " "), nil
}

// javaQuote writes a value so that the JVM, which splits JAVA_TOOL_OPTIONS at
// white space and knows quotes but no escapes, reads it as one word.
func javaQuote(s string) (string, error) {
	switch {
	case !strings.ContainsAny(s, " \t\n\r\v\f\"'"):
		return s, nil
	case !strings.Contains(s, `"`):
		return `"` + s + `"`, nil
	case !strings.Contains(s, "'"):
		return "'" + s + "'", nil
	}
	return "", fmt.Errorf("the path %s has both kinds of quotes, which no JVM option can express", s)
}

// lookup is the value of a variable in an environment, empty if it is not
// there.
func lookup(env []string, name string) string {
	value := ""
	for _, v := range env {
		if n, val, ok := strings.Cut(v, "="); ok && n == name {
			value = val
		}
	}
	return value
}

// WorkloadEnv is what the admission webhook puts into a container of a pod
// that uses workload identity, in its order: AZURE_CLIENT_ID,
// AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE and AZURE_AUTHORITY_HOST. As
// there, an empty value is left out, and the authority has a closing slash.
func WorkloadEnv(clientID, tenantID, tokenFile, authorityHost string) []string {
	if authorityHost != "" && !strings.HasSuffix(authorityHost, "/") {
		authorityHost += "/"
	}
	var out []string
	for _, v := range [][2]string{
		{"AZURE_CLIENT_ID", clientID},
		{"AZURE_TENANT_ID", tenantID},
		{"AZURE_FEDERATED_TOKEN_FILE", tokenFile},
		{"AZURE_AUTHORITY_HOST", authorityHost},
	} {
		if v[1] != "" {
			out = append(out, v[0]+"="+v[1])
		}
	}
	return out
}
