package sts

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/token"
	"github.com/podkey/podkey/internal/web"
)

// maxSelfSigned is how far in the future an assertion that a client signed
// itself may expire. Libraries say ten minutes.
const maxSelfSigned = 24 * time.Hour

// byCertificate authenticates a client by an assertion that it signed with
// the key of a registered certificate, RS256 or PS256.
//
// A certificate is trusted because it is registered. The x5c header, by which
// Entra can be told to trust whatever an authority signed for a subject name,
// is not read.
func (x *exchange) byCertificate(a *token.Assertion) (proof, error) {
	if !strings.EqualFold(a.Issuer, x.client.AppID) || !strings.EqualFold(a.Subject, x.client.AppID) {
		return proof{}, errAssertionClient().because("expected iss and sub %q, the assertion has iss %q and sub %q", x.client.AppID, echo(a.Issuer), echo(a.Subject))
	}
	if !slices.ContainsFunc(a.Audience, x.isOwnAudience) {
		want := x.call.Names.Login + "/" + x.realm.ID + "/oauth2/v2.0/token"
		return proof{}, errAssertionAudience().because("expected aud %q, the assertion has %q", want, echo(strings.Join(a.Audience, ", ")))
	}
	if err := x.inTime(a); err != nil {
		return proof{}, err
	}
	if a.Expiry.Sub(x.now) > maxSelfSigned+token.Leeway {
		return proof{}, errAssertionTime(x.now, a.NotBefore, a.Expiry).because("the assertion expires at %s, more than %s from now", isoTime(a.Expiry), maxSelfSigned)
	}
	cert, err := x.registered(a)
	if err != nil {
		return proof{}, err
	}
	parsed, err := x509.ParseCertificate(cert.DER)
	if err != nil {
		return proof{}, fmt.Errorf("parse registered certificate %s: %w", cert.KeyID, err)
	}
	if err := a.VerifySignature(parsed.PublicKey); err != nil {
		e := errSignature("The signature is not that of the key.", thumbprint(a))
		e.Err = err
		return proof{}, e.because("certificate %s: %v", cert.KeyID, err)
	}
	return proof{class: "2", via: "certificate/" + cert.KeyID}, nil
}

// registered finds the certificate that an assertion's header names, by both
// thumbprints if there are two.
func (x *exchange) registered(a *token.Assertion) (*directory.ClientCertificate, error) {
	if a.X5t == "" && a.X5tS256 == "" {
		return nil, errSignature("The key was not found.", "").because("the assertion has neither x5t nor x5t#S256")
	}
	short, long := canonicalThumbprint(a.X5t), canonicalThumbprint(a.X5tS256)
	for i := range x.client.Certificates {
		c := &x.client.Certificates[i]
		if short != "" && short != c.X5T || long != "" && long != c.X5TS256 {
			continue
		}
		switch {
		case !x.now.Before(c.End):
			return nil, errSignature("The key used is expired.", thumbprint(a)).because("certificate %s expired at %s", c.KeyID, isoTime(c.End))
		case x.now.Before(c.Start):
			return nil, errSignature("The key used is not valid yet.", thumbprint(a)).because("certificate %s is not valid before %s", c.KeyID, isoTime(c.Start))
		}
		return c, nil
	}
	return nil, errSignature("The key was not found.", thumbprint(a)).because("none of the client's %d certificates has the thumbprint", len(x.client.Certificates))
}

func thumbprint(a *token.Assertion) string {
	if a.X5tS256 != "" {
		return a.X5tS256
	}
	return a.X5t
}

// canonicalThumbprint brings a thumbprint into base64url without padding:
// MSAL for Go writes the standard alphabet, with padding. Text that is neither
// becomes one that matches nothing.
func canonicalThumbprint(s string) string {
	if s == "" {
		return ""
	}
	s = strings.TrimRight(s, "=")
	s = strings.NewReplacer("+", "-", "/", "_").Replace(s)
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) == 0 || strings.ContainsAny(s, "\r\n") { // which the decoder skips
		return "?"
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// isOwnAudience reports whether aud names this tenant's token service: its
// token endpoint (of either version, at the root or below /adfs) or its
// issuer, by any of our names.
func (x *exchange) isOwnAudience(aud string) bool {
	aud = strings.TrimSuffix(strings.ToLower(aud), "/")
	here := &web.Names{Login: "https://" + x.call.Host, STS: "https://" + x.call.Host} // a regional name
	for _, n := range append(x.allNames(x.call), here) {
		if aud == strings.TrimSuffix(strings.ToLower(n.IssuerV1(x.realm.ID)), "/") {
			return true
		}
		path, ok := strings.CutPrefix(aud, strings.ToLower(n.Login)+"/")
		if ok && x.isOwnPath(path) {
			return true
		}
	}
	return false
}

func (x *exchange) isOwnPath(path string) bool {
	if rest, ok := strings.CutPrefix(path, "adfs/"); ok {
		switch rest {
		case "oauth2/token", "oauth2/v2.0/token":
			return x.realm.unsaid
		}
		if _, path, ok = strings.Cut(rest, "/"); !ok {
			return false
		}
	}
	tenant, endpoint, _ := strings.Cut(path, "/")
	if tenant != x.realm.ID && !slices.Contains(x.realm.Domains, tenant) {
		return false
	}
	switch endpoint {
	case "oauth2/v2.0/token", "oauth2/token", "v2.0", "":
		return true
	}
	return false
}
