// Package kubeconfig reads one context out of a Kubernetes client
// configuration and writes it as a configuration of its own.
//
// It owns what of such a file we are ready to keep and hand on. It guarantees
// that what [Parse] returns is complete in itself, since no file is referred
// to; that it verifies the API server's certificate; that it runs no program
// unless that was allowed; and that no error has any text of the file in it
// but names of contexts and members, so that errors may be shown and logged.
package kubeconfig

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/podkey/podkey/internal/text"
)

// Access is how one context reaches its cluster. It holds credentials: it is
// stored sealed and never logged.
type Access struct {
	Server        string `json:"server"` // https URL of the API server
	CA            []byte `json:"ca,omitempty"`
	TLSServerName string `json:"tlsServerName,omitempty"`
	ProxyURL      string `json:"proxyUrl,omitempty"`
	Namespace     string `json:"namespace,omitempty"`

	Token       string `json:"token,omitempty"`
	Username    string `json:"username,omitempty"`
	Password    string `json:"password,omitempty"`
	Certificate []byte `json:"certificate,omitempty"` // PEM
	Key         []byte `json:"key,omitempty"`         // PEM
	Exec        *Exec  `json:"exec,omitempty"`
}

// Exec is a credential plugin: a program that every user of the configuration
// runs.
type Exec struct {
	APIVersion         string   `json:"apiVersion,omitempty"`
	Command            string   `json:"command"`
	Args               []string `json:"args,omitempty"`
	Env                []EnvVar `json:"env,omitempty"`
	InstallHint        string   `json:"installHint,omitempty"`
	ProvideClusterInfo bool     `json:"provideClusterInfo,omitempty"`
	InteractiveMode    string   `json:"interactiveMode,omitempty"`
}

// EnvVar is one variable of a plugin's environment.
type EnvVar struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// String keeps credentials out of logs and test output.
func (Access) String() string { return "kubeconfig.Access(redacted)" }

// GoString is String for %#v.
func (a Access) GoString() string { return a.String() }

// Options say what [Parse] may take.
type Options struct {
	// Context is the context to take: if empty the current one, or the only one.
	Context string
	// ReadFile reads what the configuration refers to by path; nil refuses such
	// references.
	ReadFile func(path string) ([]byte, error)
	// AllowExec accepts a context with a credential plugin.
	AllowExec bool
}

// MaxSize is the largest configuration that is read, in bytes.
const MaxSize = 256 << 10

// ErrExec says that the context runs a credential plugin and that this was
// not allowed.
var ErrExec = errors.New("the user of the context runs a program (exec): everybody who uses the configuration would run it too")

// wire is the file, its lists not looked into.
type wire struct {
	APIVersion     string  `json:"apiVersion"`
	Kind           string  `json:"kind"`
	CurrentContext string  `json:"current-context"`
	Clusters       []named `json:"clusters"`
	Contexts       []named `json:"contexts"`
	Users          []named `json:"users"`
	Preferences    any     `json:"preferences,omitempty"`
	Extensions     any     `json:"extensions,omitempty"`
}

type named struct {
	Name    string          `json:"name"`
	Cluster json.RawMessage `json:"cluster,omitempty"`
	Context json.RawMessage `json:"context,omitempty"`
	User    json.RawMessage `json:"user,omitempty"`
}

type wireContext struct {
	Cluster    string `json:"cluster"`
	User       string `json:"user"`
	Namespace  string `json:"namespace,omitempty"`
	Extensions any    `json:"extensions,omitempty"`
}

type wireCluster struct {
	Server             string `json:"server"`
	CAData             []byte `json:"certificate-authority-data,omitempty"`
	CAFile             string `json:"certificate-authority,omitempty"`
	TLSServerName      string `json:"tls-server-name,omitempty"`
	ProxyURL           string `json:"proxy-url,omitempty"`
	SkipVerify         bool   `json:"insecure-skip-tls-verify,omitempty"`
	DisableCompression bool   `json:"disable-compression,omitempty"`
	Extensions         any    `json:"extensions,omitempty"`
}

type wireUser struct {
	Token        string          `json:"token,omitempty"`
	TokenFile    string          `json:"tokenFile,omitempty"`
	Username     string          `json:"username,omitempty"`
	Password     string          `json:"password,omitempty"`
	CertData     []byte          `json:"client-certificate-data,omitempty"`
	CertFile     string          `json:"client-certificate,omitempty"`
	KeyData      []byte          `json:"client-key-data,omitempty"`
	KeyFile      string          `json:"client-key,omitempty"`
	Exec         json.RawMessage `json:"exec,omitempty"`
	AuthProvider json.RawMessage `json:"auth-provider,omitempty"`
	Extensions   any             `json:"extensions,omitempty"`
}

// Parse reads one context of a configuration, YAML or JSON. Other contexts of
// the same file are not looked at: people keep many in one.
func Parse(data []byte, o Options) (*Access, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("longer than %d bytes", MaxSize)
	}
	// The causes of the errors below would quote the file.
	plain, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, errors.New("not valid YAML, or a member is repeated")
	}
	var w wire
	if err := json.Unmarshal(plain, &w); err != nil {
		return nil, errors.New("not a kubeconfig: a member has the wrong type")
	}
	if w.Kind != "Config" || w.APIVersion != "v1" {
		return nil, errors.New("not a kubeconfig: it must have kind Config and apiVersion v1")
	}
	name, err := w.choose(o.Context)
	if err != nil {
		return nil, err
	}
	var ctx wireContext
	var cluster wireCluster
	var user wireUser
	if err := find(w.Contexts, "context", name, func(n *named) json.RawMessage { return n.Context }, &ctx); err != nil {
		return nil, err
	}
	if err := find(w.Clusters, "cluster", ctx.Cluster, func(n *named) json.RawMessage { return n.Cluster }, &cluster); err != nil {
		return nil, err
	}
	if err := find(w.Users, "user", ctx.User, func(n *named) json.RawMessage { return n.User }, &user); err != nil {
		return nil, err
	}
	return assemble(&ctx, &cluster, &user, o)
}

// choose returns the name of the context to take.
func (w *wire) choose(want string) (string, error) {
	var names []string
	for _, c := range w.Contexts {
		names = append(names, printable(c.Name))
	}
	switch {
	case want != "":
		if !slices.ContainsFunc(w.Contexts, func(c named) bool { return c.Name == want }) {
			return "", fmt.Errorf("there is no context %q; there are: %s", want, strings.Join(names, ", "))
		}
		return want, nil
	case w.CurrentContext != "":
		return w.CurrentContext, nil
	case len(w.Contexts) == 1:
		return w.Contexts[0].Name, nil
	}
	return "", fmt.Errorf("there is no current context; choose one of: %s", strings.Join(names, ", "))
}

// find decodes the one entry of a list that has a name.
func find(list []named, what, name string, body func(*named) json.RawMessage, out any) error {
	var found *named
	for i := range list {
		if list[i].Name != name {
			continue
		}
		if found != nil {
			return fmt.Errorf("two entries for the %s %q", what, printable(name))
		}
		found = &list[i]
	}
	if found == nil || len(body(found)) == 0 {
		return fmt.Errorf("there is no %s %q", what, printable(name))
	}
	dec := json.NewDecoder(bytes.NewReader(body(found)))
	dec.DisallowUnknownFields()
	err := dec.Decode(out)
	switch {
	case err == nil:
		return nil
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		// encoding/json has no type for this; what follows is the member's name.
		return fmt.Errorf("the %s has a member that is not supported: %s", what, printable(strings.TrimPrefix(err.Error(), "json: unknown field ")))
	}
	return fmt.Errorf("the %s has a member of the wrong type", what)
}

// assemble checks what was found and brings in what it refers to.
func assemble(ctx *wireContext, c *wireCluster, u *wireUser, o Options) (*Access, error) {
	if err := checkServer(c.Server); err != nil {
		return nil, err
	}
	switch {
	case c.SkipVerify:
		return nil, errors.New("insecure-skip-tls-verify is set: anybody on the way could be the cluster, and its keys anybody's; give certificate-authority-data instead")
	case len(u.AuthProvider) > 0:
		return nil, errors.New("the user has an auth-provider, which Kubernetes does not support any more")
	}
	if err := checkProxy(c.ProxyURL); err != nil {
		return nil, err
	}
	a := &Access{
		Server: c.Server, TLSServerName: c.TLSServerName, ProxyURL: c.ProxyURL, Namespace: ctx.Namespace,
		Username: u.Username, Password: u.Password,
	}
	var err error
	if a.CA, err = bring(c.CAData, c.CAFile, "certificate-authority", o); err != nil {
		return nil, err
	}
	if a.Certificate, err = bring(u.CertData, u.CertFile, "client-certificate", o); err != nil {
		return nil, err
	}
	if a.Key, err = bring(u.KeyData, u.KeyFile, "client-key", o); err != nil {
		return nil, err
	}
	// As in Kubernetes, the file counts if there are both.
	a.Token = u.Token
	if u.TokenFile != "" {
		text, err := bring(nil, u.TokenFile, "tokenFile", o)
		if err != nil {
			return nil, err
		}
		a.Token = strings.TrimSpace(string(text))
	}
	if len(u.Exec) > 0 {
		if !o.AllowExec {
			return nil, ErrExec
		}
		a.Exec = &Exec{}
		dec := json.NewDecoder(bytes.NewReader(u.Exec))
		dec.DisallowUnknownFields()
		if err := dec.Decode(a.Exec); err != nil || a.Exec.Command == "" {
			return nil, errors.New("the user's exec is not as it must be")
		}
	}
	return a, a.check()
}

func checkServer(server string) error {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("the cluster's server must be an https URL without user information, query and fragment")
	}
	return nil
}

func checkProxy(proxy string) error {
	if proxy == "" {
		return nil
	}
	u, err := url.Parse(proxy)
	if err != nil || u.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5"}, u.Scheme) {
		return errors.New("the cluster's proxy-url must be an http, https or socks5 URL")
	}
	return nil
}

// bring returns what a member has inline or refers to.
func bring(data []byte, file, member string, o Options) ([]byte, error) {
	switch {
	case file == "" || len(data) > 0: // as in Kubernetes, data counts if there are both
		return data, nil
	case o.ReadFile == nil:
		return nil, fmt.Errorf("%s refers to a file, which only you have; embed it: kubectl config view --flatten --minify", member)
	}
	b, err := o.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", member, err)
	}
	if len(b) == 0 || len(b) > MaxSize {
		return nil, fmt.Errorf("%s: the file must have 1 to %d bytes", member, MaxSize)
	}
	return b, nil
}

// check looks at the whole.
func (a *Access) check() error {
	if len(a.CA) > 0 && !x509.NewCertPool().AppendCertsFromPEM(a.CA) {
		return errors.New("the certificate authority is not a PEM certificate")
	}
	if (len(a.Certificate) == 0) != (len(a.Key) == 0) {
		return errors.New("client certificate and client key belong together")
	}
	if len(a.Certificate) > 0 {
		if _, err := tls.X509KeyPair(a.Certificate, a.Key); err != nil {
			return errors.New("client certificate and client key are not PEM, or do not belong together")
		}
	}
	if strings.ContainsFunc(a.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return errors.New("the token has a character that no token has")
	}
	if a.Exec == nil && a.Token == "" && len(a.Certificate) == 0 && a.Username == "" {
		return errors.New("the user has no credential")
	}
	return nil
}

// Render writes the access as a configuration with one context.
func (a *Access) Render(cluster, user, context string) ([]byte, error) {
	wc := wireCluster{Server: a.Server, CAData: a.CA, TLSServerName: a.TLSServerName, ProxyURL: a.ProxyURL}
	wu := wireUser{Token: a.Token, Username: a.Username, Password: a.Password, CertData: a.Certificate, KeyData: a.Key}
	if a.Exec != nil {
		b, err := json.Marshal(a.Exec)
		if err != nil {
			return nil, err
		}
		wu.Exec = b
	}
	entry := func(v any) json.RawMessage {
		b, _ := json.Marshal(v) // strings and bytes: cannot fail
		return b
	}
	return yaml.Marshal(wire{
		APIVersion: "v1", Kind: "Config", CurrentContext: context,
		Clusters: []named{{Name: cluster, Cluster: entry(wc)}},
		Contexts: []named{{Name: context, Context: entry(wireContext{Cluster: cluster, User: user, Namespace: a.Namespace})}},
		Users:    []named{{Name: user, User: entry(wu)}},
	})
}

// TLS is how to connect to the API server.
func (a *Access) TLS() (*tls.Config, error) {
	c := &tls.Config{ServerName: a.TLSServerName, MinVersion: tls.VersionTLS12}
	if len(a.CA) > 0 {
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AppendCertsFromPEM(a.CA)
	}
	if len(a.Certificate) > 0 {
		pair, err := tls.X509KeyPair(a.Certificate, a.Key)
		if err != nil {
			return nil, errors.New("client certificate and client key do not belong together")
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// printable makes a name of the file fit for a message.
func printable(s string) string { return text.Clip(s, 80) }
