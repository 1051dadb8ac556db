package server

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// Config is everything that an operator decides about a server. The zero
// value, with Data set, is a working server on loopback. It is read from one
// strict YAML file; flags override single members.
type Config struct {
	// Data is the directory of the embedded store, the audit log and the
	// operator's files. Required.
	Data string `json:"data"`

	// Listen is the one address, host:port. 127.0.0.1:8443 if empty.
	Listen string `json:"listen"`

	// Domain is the suffix of Podkey's own names, with a port unless clients
	// reach the server on 443. podkey.localhost with the port of Listen if empty.
	Domain string `json:"domain"`

	// KEK is the file of the key-encryption key, as a path or a file: URI.
	// kek.json in Data if empty: move it elsewhere where a copy of the data
	// directory must not open the store.
	KEK string `json:"kek"`

	Etcd   EtcdConfig   `json:"etcd"`
	Tokens TokenConfig  `json:"tokens"`
	Issuer IssuerConfig `json:"issuers"`
	Audit  AuditConfig  `json:"audit"`
	TLS    TLSConfig    `json:"tls"`
	SignIn SignInConfig `json:"signIn"`

	Clusters ClusterConfig `json:"clusters"`
}

// EtcdConfig names an external etcd. Without endpoints the store is embedded.
type EtcdConfig struct {
	Endpoints []string `json:"endpoints"` // https URLs
	CA        string   `json:"ca"`        // PEM file of the CA of etcd's servers
	Cert      string   `json:"cert"`      // PEM file of our client certificate
	Key       string   `json:"key"`       // PEM file of its key
	Prefix    string   `json:"prefix"`    // of all keys; podkey/ if empty
}

// TokenConfig is about the tokens that we sign.
type TokenConfig struct {
	// Algorithm RS256 signs every token so; empty means ES256 for Podkey's own
	// resources and RS256 for others.
	Algorithm string `json:"algorithm"`
	// FederatedLimit is the largest number of federated credentials of one
	// identity; Azure's is 20. 1000 if zero.
	FederatedLimit int `json:"federatedLimit"`
}

// IssuerConfig is about fetching the keys of clusters' issuers.
type IssuerConfig struct {
	AllowLoopback bool   `json:"allowLoopback"` // issuers on this machine, also by http
	AllowPrivate  bool   `json:"allowPrivate"`  // issuers on private addresses
	CA            string `json:"ca"`            // PEM file of further roots for issuers; the system's are always trusted
}

// AuditConfig is about the audit log.
type AuditConfig struct {
	File     string `json:"file"`     // audit.jsonl in Data if empty
	SyncEach bool   `json:"syncEach"` // sync each record to disk before the answer, not once a second
}

// TLSConfig supplies the serving certificate of Podkey's own names from
// files, which are read again when they change. Without them Podkey's own CA
// issues it.
type TLSConfig struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// ReadConfig reads a configuration file. Unknown members are refused.
func ReadConfig(path string) (Config, error) {
	var c Config
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if err := yaml.UnmarshalStrict(b, &c); err != nil {
		return c, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}

var domainPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+(:[0-9]{1,5})?$`)

// withDefaults fills in what is empty.
func (c Config) withDefaults() Config {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&c.Listen, "127.0.0.1:8443")
	set(&c.KEK, filepath.Join(c.Data, "kek.json"))
	set(&c.Audit.File, filepath.Join(c.Data, "audit.jsonl"))
	c.KEK = strings.TrimPrefix(c.KEK, "file://")
	return c
}

// Validate reports all problems at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Data == "" {
		bad("data: the directory is missing")
	}
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			bad("listen: %q is not host:port", c.Listen)
		}
	}
	if c.Domain != "" && !domainPattern.MatchString(c.Domain) {
		bad("domain: %q is not a lower-case domain name of at least two labels, with an optional port", c.Domain)
	}
	if scheme, _, ok := strings.Cut(c.KEK, "://"); ok && scheme != "file" {
		bad("kek: %q: only files are supported, as a path or a file:// URI", c.KEK)
	}
	for _, e := range c.Etcd.Endpoints {
		if u, err := url.Parse(e); err != nil || u.Scheme != "https" || u.Host == "" {
			bad("etcd.endpoints: %q is not an https URL", e)
		}
	}
	if len(c.Etcd.Endpoints) > 0 && (c.Etcd.CA == "" || c.Etcd.Cert == "" || c.Etcd.Key == "") {
		bad("etcd: ca, cert and key are needed with endpoints")
	}
	if len(c.Etcd.Endpoints) == 0 && (c.Etcd.CA != "" || c.Etcd.Cert != "" || c.Etcd.Key != "") {
		bad("etcd: ca, cert and key are of no use without endpoints")
	}
	if a := c.Tokens.Algorithm; a != "" && a != "RS256" {
		bad("tokens.algorithm: %q: only RS256 can be forced", a)
	}
	if c.Tokens.FederatedLimit < 0 {
		bad("tokens.federatedLimit: must not be negative")
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		bad("tls: cert and key belong together")
	}
	errs = append(errs, c.SignIn.problems()...)
	errs = append(errs, c.Clusters.problems()...)
	return errors.Join(errs...)
}
