package sts

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/podkey/podkey/internal/server/directory"
)

// target is a redirect URI that a client may have people sent back to.
type target struct {
	source    string // for the page's policy: its origin, or its scheme where a policy cannot name the origin
	ownScheme bool   // the scheme is neither http nor https but a program's own
	web       bool   // a server is behind it: it proves itself when it redeems the code
}

// targetOf finds a redirect URI among those of the client; ok is false for one
// that must not be redirected to.
//
// It is compared as text with what is registered, to the last byte: nothing is
// parsed, so nothing can be read in two ways. There is one exception, a
// program on the person's own machine that listens for the answer: its port is
// whichever was free (RFC 8252 7.3). The clients that every tenant knows have
// nothing registered and are such programs.
func targetOf(c *directory.Client, uri string) (t target, ok bool) {
	if firstParty(c.AppID) != "" {
		origin, ok := loopback(uri)
		return target{source: origin}, ok
	}
	rs := &c.Redirects
	switch {
	case slices.Contains(rs.Web, uri):
		t.web = true
	case slices.Contains(rs.SPA, uri), slices.Contains(rs.Public, uri):
	case slices.ContainsFunc(rs.Public, func(registered string) bool { return sameButPort(registered, uri) }):
	default:
		return target{}, false
	}
	scheme, rest, _ := strings.Cut(uri, ":")
	if scheme = strings.ToLower(scheme); scheme != "http" && scheme != "https" {
		t.source, t.ownScheme = scheme+":", true
		return t, true
	}
	m := authority.FindStringSubmatch(rest)
	if m == nil {
		return target{}, false
	}
	t.source = scheme + ":" + m[1] // m[1] is empty for an IPv6 address: a policy has no way to write one
	return t, true
}

// authority is the host and port of a URI. A name or IPv4 address is taken
// out, with its port, as the host-source of Content-Security-Policy Level 3,
// 2.3.1, has them.
var authority = regexp.MustCompile(`\A(?:(//[A-Za-z0-9.-]+(?::[0-9]+)?)|//\[[0-9A-Fa-f:.]+\](?::[0-9]+)?)(?:[/?]|\z)`)

// loopbackURI is the redirect URI of a client that every tenant knows. The
// whole text is matched, so that there is no room for a user part, another
// host, a query or a fragment, in whatever spelling.
var loopbackURI = regexp.MustCompile(`\A(http://(?:localhost|127\.0\.0\.1)(?::([1-9][0-9]{0,4}))?)/?\z`)

// loopback returns the origin of a redirect URI on this machine without a
// path.
func loopback(uri string) (origin string, ok bool) {
	m := loopbackURI.FindStringSubmatch(uri)
	if m == nil || !isPort(m[2]) {
		return "", false
	}
	return m[1], true
}

// isPort reports whether text, which has digits only, is a port or empty.
func isPort(text string) bool {
	n, err := strconv.Atoi(text)
	return text == "" || err == nil && n <= 65535
}

// machineURI is a redirect URI on this machine: host, port, and all the rest.
var machineURI = regexp.MustCompile(`\A(http://(?:localhost|127\.0\.0\.1|\[::1\]))(?::([1-9][0-9]{0,4}))?(?:/(.*))?\z`)

// sameButPort reports whether two redirect URIs are on this machine and differ
// in the port alone.
func sameButPort(a, b string) bool {
	ma, mb := machineURI.FindStringSubmatch(a), machineURI.FindStringSubmatch(b)
	return ma != nil && mb != nil && ma[1] == mb[1] && ma[3] == mb[3] && isPort(mb[2])
}

func errRedirect(c *directory.Client, uri string) *Error {
	if firstParty(c.AppID) != "" {
		return badRequest(50011, invalidRequest, "The redirect URI '%s' specified in the request does not match the redirect URIs configured for the application. It must be http://localhost or http://127.0.0.1, with any port and no path.", echo(uri))
	}
	return badRequest(50011, invalidRequest, "The redirect URI '%s' specified in the request does not match the redirect URIs configured for the application '%s'. Register it for the application exactly as it is sent, or send one that is registered.", echo(uri), c.AppID)
}

// The response modes.
const (
	modeQuery    = "query"
	modeFragment = "fragment"
	modePost     = "form_post"
)

// redirected is a redirect URI with an answer's parameters in query or
// fragment. A bare origin gets its slash, which browsers would add.
func redirected(uri, mode string, answer []field) string {
	v := url.Values{}
	for _, f := range answer {
		v.Set(f.Name, f.Value)
	}
	if scheme, rest, ok := strings.Cut(uri, "://"); ok && (scheme == "http" || scheme == "https") && !strings.ContainsAny(rest, "/?") {
		uri += "/"
	}
	sep := "?"
	switch {
	case mode == modeFragment:
		sep = "#"
	case strings.Contains(uri, "?"):
		sep = "&"
	}
	return uri + sep + v.Encode()
}
