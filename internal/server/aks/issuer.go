package aks

import (
	"net"
	"net/url"
	"strings"

	"github.com/podkey/podkey/internal/fault"
)

// maxIssuer is the longest issuer, in bytes: as long as a federated
// credential's may be.
const maxIssuer = 600

// checkIssuer judges the issuer of a cluster that is to be registered. It is
// kept byte for byte, closing slash included: that is how tokens carry it and
// how federated credentials are compared.
func (c *Clusters) checkIssuer(issuer string) error {
	bad := func(why string) error {
		return fault.BadRequest(codeRegistration, "properties.podkey.issuer %s.", why)
	}
	if issuer == "" || len(issuer) > maxIssuer {
		return bad("must be the cluster's issuer, exactly as in its discovery document, and have at most 600 characters")
	}
	for i := range len(issuer) {
		if b := issuer[i]; b <= ' ' || b >= 0x7f || b == '\\' {
			return bad("has a character that does not belong in a URL")
		}
	}
	u, err := url.Parse(issuer)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return bad("must be a URL")
	case u.User != nil || strings.ContainsAny(issuer, "?#"):
		return bad("must not have user information, a query or a fragment")
	case u.Scheme == "https":
	case u.Scheme == "http" && c.o.AllowLoopback && isLoopback(u.Hostname()):
	default:
		return bad("must be an https URL")
	}
	// Tokens of the built-in clusters, of this token service and of Entra are
	// judged by keys of their own.
	if c.o.Reserved(strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")) {
		return bad("is under a name of this server or of Entra; only a cluster with an issuer of its own can be registered")
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
