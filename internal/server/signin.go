package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/sts"
)

// SignInConfig is about how people sign in.
type SignInConfig struct {
	// DisablePasswords refuses users' passwords, on the sign-in page and from
	// command lines. It needs OIDC: else nobody could sign in.
	DisablePasswords bool `json:"disablePasswords"`
	// OIDC leaves sign-in to an outside identity provider.
	OIDC *OIDCConfig `json:"oidc"`
}

// OIDCConfig names an outside identity provider. Its client must have the
// redirect URI https://login.DOMAIN/signin/oidc/callback, with the port of the
// domain. People are the users whose name is the e-mail address that the
// provider has verified.
type OIDCConfig struct {
	Issuer           string   `json:"issuer"` // https URL
	ClientID         string   `json:"clientId"`
	ClientSecretFile string   `json:"clientSecretFile"` // file with the secret; a public client if empty
	AllowedDomains   []string `json:"allowedDomains"`   // of e-mail addresses; all of the tenants' if empty
	Name             string   `json:"name"`             // for the sign-in page; the issuer's host if empty
	CA               string   `json:"ca"`               // PEM file of further roots for the provider; the system's are always trusted
}

// problems names what is wrong with the configuration.
func (c SignInConfig) problems() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	o := c.OIDC
	if o == nil {
		if c.DisablePasswords {
			bad("signIn.disablePasswords: nobody could sign in without signIn.oidc")
		}
		return errs
	}
	if u, err := url.Parse(o.Issuer); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		bad("signIn.oidc.issuer: %q is not an https URL", o.Issuer)
	}
	if o.ClientID == "" {
		bad("signIn.oidc.clientId: missing")
	}
	for _, d := range o.AllowedDomains {
		if !directory.ValidDomain(d) {
			bad("signIn.oidc.allowedDomains: %q is not a DNS name", d)
		}
	}
	return errs
}

// outsideTimeout bounds each question to the identity provider: a person
// waits.
const outsideTimeout = 10 * time.Second

// signIn is the configuration as the token service takes it.
func (c SignInConfig) signIn() (sts.SignIn, error) {
	s := sts.SignIn{DisablePasswords: c.DisablePasswords}
	o := c.OIDC
	if o == nil {
		return s, nil
	}
	roots, err := issuerRoots(o.CA)
	if err != nil {
		return s, fmt.Errorf("signIn.oidc.ca: %w", err)
	}
	p := &sts.OIDCProvider{Issuer: o.Issuer, ClientID: o.ClientID, Name: o.Name}
	for _, d := range o.AllowedDomains {
		p.Domains = append(p.Domains, strings.ToLower(d))
	}
	if o.ClientSecretFile != "" {
		b, err := os.ReadFile(o.ClientSecretFile)
		if err != nil {
			return s, fmt.Errorf("signIn.oidc.clientSecretFile: %w", err)
		}
		if p.ClientSecret = strings.TrimSpace(string(b)); p.ClientSecret == "" {
			return s, errors.New("signIn.oidc.clientSecretFile: the file is empty")
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	p.Client = &http.Client{Transport: transport, Timeout: outsideTimeout}
	s.OIDC = p
	return s, nil
}
