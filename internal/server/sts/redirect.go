package sts

import (
	"net/url"
	"regexp"
	"strconv"
)

// loopbackURI is the only kind of redirect URI that there is: a program on the
// person's own machine that listens for the answer (RFC 8252 7.3). The whole
// text is matched, so that there is no room for a user part, another host, a
// query or a fragment, in whatever spelling.
//
// Applications cannot register others yet, so a page of a web application is
// never redirected to.
var loopbackURI = regexp.MustCompile(`\A(http://(?:localhost|127\.0\.0\.1)(?::([1-9][0-9]{0,4}))?)/?\z`)

// loopback returns the origin of a redirect URI; ok is false for one that must
// not be redirected to.
func loopback(uri string) (origin string, ok bool) {
	m := loopbackURI.FindStringSubmatch(uri)
	if m == nil {
		return "", false
	}
	if m[2] != "" {
		if port, err := strconv.Atoi(m[2]); err != nil || port > 65535 {
			return "", false
		}
	}
	return m[1], true
}

func errRedirect(uri string) *Error {
	return badRequest(50011, invalidRequest, "The redirect URI '%s' specified in the request does not match the redirect URIs configured for the application. It must be http://localhost or http://127.0.0.1, with any port and no path.", echo(uri))
}

// The response modes.
const (
	modeQuery    = "query"
	modeFragment = "fragment"
	modePost     = "form_post"
)

// redirected is a redirect URI with an answer's parameters in query or
// fragment. A bare origin gets its slash, which browsers would add.
func redirected(origin, mode string, answer []field) string {
	v := url.Values{}
	for _, f := range answer {
		v.Set(f.Name, f.Value)
	}
	sep := "/?"
	if mode == modeFragment {
		sep = "/#"
	}
	return origin + sep + v.Encode()
}
