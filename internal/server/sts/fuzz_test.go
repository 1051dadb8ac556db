package sts

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// The form parser agrees with the standard one on everything that it accepts,
// and accepts nothing that two readers could read differently.
func FuzzParseForm(f *testing.F) {
	f.Add("grant_type=client_credentials&client_id=a&scope=x%2F.default+openid")
	f.Add("a=1&a=2")
	f.Add("a&b=&=c&&d=%zz;e=f")
	f.Add("client%5Fid=%ff&\x00=\xc3\x28")
	f.Fuzz(func(t *testing.T, body string) {
		got, err := parseForm(body)
		if err != nil {
			if _, ok := err.(*Error); !ok {
				t.Fatalf("%T", err)
			}
			return
		}
		want, err := url.ParseQuery(body)
		if err != nil && !strings.Contains(body, ";") { // the standard parser drops pairs with semicolons
			t.Fatalf("accepted %q: %v", body, err)
		}
		for name, value := range got {
			if !utf8.ValidString(value) || !utf8.ValidString(name) {
				t.Errorf("%q=%q", name, value)
			}
			if err == nil && (len(want[name]) != 1 || want[name][0] != value) {
				t.Errorf("%q is %q, the standard parser has %q", name, value, want[name])
			}
		}
		if err == nil {
			for name, values := range want {
				if len(values) != 1 || values[0] != got[name] {
					t.Errorf("%q is %q, the standard parser has %q", name, got[name], values)
				}
			}
		}
	})
}

// A resource found in a scope is in it verbatim, and there is no other one.
func FuzzParseScope(f *testing.F) {
	f.Add("https://vault.azure.net/.default")
	f.Add("https://vault.azure.net//.default openid offline_access profile")
	f.Add("a/.default b/.default")
	f.Add("/.default .default")
	f.Add("OPENID\t\x00/.default")
	f.Fuzz(func(t *testing.T, scope string) {
		resource, err := parseScope(scope)
		if err != nil {
			if e, ok := err.(*Error); !ok || e.OAuth != invalidScope || resource != "" {
				t.Fatalf("%v, %q", err, resource)
			}
			return
		}
		if resource == "" || strings.ContainsAny(resource, " \t\r\n\"\\") {
			t.Errorf("resource %q", resource)
		}
		left := 0
		for part := range strings.SplitSeq(scope, " ") {
			switch {
			case part == resource+"/.default":
				left++
			case part == "" || strings.EqualFold(part, "openid") || strings.EqualFold(part, "offline_access") || strings.EqualFold(part, "profile") || strings.EqualFold(part, "email"):
			default:
				t.Errorf("%q in %q was ignored", part, scope)
			}
		}
		if left != 1 {
			t.Errorf("%q occurs %d times in %q", resource, left, scope)
		}
	})
}

func FuzzEcho(f *testing.F) {
	f.Add("plain")
	f.Add("a\r\nb\x00\u202e\xff")
	f.Add(strings.Repeat("é", 400))
	f.Fuzz(func(t *testing.T, s string) {
		out := echo(s)
		if len(out) > maxEcho+3 || !utf8.ValidString(out) || strings.ContainsFunc(out, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", out)
		}
	})
}

func FuzzCanonicalThumbprint(f *testing.F) {
	f.Add("")
	f.Add("hRBQ+/==")
	f.Add("hRBQ-_")
	f.Add("=")
	f.Add("\r")
	f.Add("?")
	f.Fuzz(func(t *testing.T, s string) {
		c := canonicalThumbprint(s)
		if (c == "") != (s == "") { // what is there but wrong must not count as absent
			t.Errorf("%q becomes %q", s, c)
		}
		if c != "?" && canonicalThumbprint(c) != c {
			t.Errorf("%q becomes %q, which becomes %q", s, c, canonicalThumbprint(c))
		}
	})
}

// A person's scope names at most one resource, verbatim, and nothing in it is
// passed over but scopes about the person.
func FuzzParseUserScope(f *testing.F) {
	f.Add("https://management.core.windows.net//.default offline_access openid profile")
	f.Add("https://vault.azure.net/user_impersonation https://vault.azure.net/.default")
	f.Add("openid")
	f.Add("/.default")
	f.Add("a/.default b/.default")
	f.Fuzz(func(t *testing.T, scope string) {
		u, err := parseUserScope(scope)
		if err != nil {
			if e, ok := err.(*Error); !ok || e.OAuth != invalidScope || u != (userScope{}) {
				t.Fatalf("%v, %+v", err, u)
			}
			return
		}
		if strings.ContainsAny(u.resource, " \t\r\n\"\\") || u.resource == "" && !u.openid {
			t.Errorf("%+v", u)
		}
		for part := range strings.SplitSeq(scope, " ") {
			switch {
			case part == "", u.resource != "" && (part == u.resource+"/.default" || part == u.resource+"/user_impersonation"):
			case strings.EqualFold(part, "openid") && u.openid, strings.EqualFold(part, "offline_access") && u.offline:
			case strings.EqualFold(part, "profile"), strings.EqualFold(part, "email"):
			default:
				t.Errorf("%q in %q was ignored", part, scope)
			}
		}
	})
}

// Whatever is accepted as a redirect URI, every reader of URLs finds this
// machine in it and nothing else.
func FuzzLoopback(f *testing.F) {
	for _, s := range []string{"http://localhost:41234", "http://127.0.0.1/", "http://localhost@evil.test/", "http://localhost:0", "http://localhost:41234/#@evil.test", "http://localhost\\.evil.test"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		origin, ok := loopback(uri)
		if !ok {
			return
		}
		u, err := url.Parse(uri)
		if err != nil || u.Scheme != "http" || u.Hostname() != "localhost" && u.Hostname() != "127.0.0.1" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
			t.Errorf("%q is %+v, %v", uri, u, err)
		}
		if origin != u.Scheme+"://"+u.Host || strings.ContainsFunc(uri, unicode.IsSpace) {
			t.Errorf("%q has origin %q", uri, origin)
		}
	})
}

// Two redirect URIs that count as the same but for the port are on this
// machine for every reader of URLs, and have the same path and query.
func FuzzSameButPort(f *testing.F) {
	for _, s := range [][2]string{
		{"http://localhost", "http://localhost:41234/"}, {"http://127.0.0.1:1/cb?x=1", "http://127.0.0.1:2/cb?x=1"}, {"http://[::1]/", "http://[::1]:9/"},
		{"http://localhost/", "http://localhost:1@evil.test/"}, {"http://localhost/x", "http://localhost:1/x#y"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, registered, uri string) {
		if !sameButPort(registered, uri) {
			return
		}
		a, err := url.Parse(registered)
		if err != nil || a.User != nil || a.Fragment != "" { // nobody could register it
			return
		}
		b, err := url.Parse(uri)
		if err != nil || b.Scheme != "http" || b.User != nil || b.Hostname() != a.Hostname() || !slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, b.Hostname()) ||
			strings.TrimPrefix(b.EscapedPath(), "/") != strings.TrimPrefix(a.EscapedPath(), "/") || b.RawQuery != a.RawQuery || b.Fragment != "" {
			t.Errorf("%q counts as %q", uri, registered)
		}
	})
}

// Where a person comes back to has no host, however it is read.
func FuzzLocalPage(f *testing.F) {
	for _, s := range []string{"/organizations/oauth2/v2.0/authorize?x=1", "/devicelogin?user_code=X", "//evil.test/authorize", "/\\evil.test/authorize", "https:/authorize", "/%2f/authorize"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if !localPage(address) {
			return
		}
		base, _ := url.Parse("https://login.podkey.test:8443/signin/oidc/callback")
		u, err := base.Parse(address)
		if err != nil || u.Host != base.Host || u.Scheme != "https" || u.User != nil {
			t.Errorf("%q leads to %v, %v", address, u, err)
		}
		if strings.ContainsAny(address, "\\\r\n\t") || !strings.HasPrefix(address, "/") || strings.HasPrefix(address, "//") {
			t.Errorf("%q", address)
		}
	})
}
