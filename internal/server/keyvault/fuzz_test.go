package keyvault_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// Whatever the path and query are, the answer is the plane's own, never a
// failure of ours, and nothing but a named secret is changed.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][3]string{
		{"GET", "/secrets/s", api}, {"GET", "/secrets/s/", api}, {"GET", "/SECRETS/%73/versions", api + "&maxresults=1"}, {"PUT", "/secrets//s//", api},
		{"POST", "/secrets/restore", api}, {"DELETE", "/deletedsecrets/a%2Fb", api}, {"PATCH", "/secrets/s/%30", "api-version=7.4&api-version=1"},
		{"GET", "/secrets", api + "&$skiptoken=MTpzZWNyZXRzOnM"}, {"GET", "/secrets/%zz", "%zz"}, {"GET", "/secrets/../s", ";;"}, {"GET", "//", "a=b=c"},
		{"POST", "/keys/k//sign", api}, {"BREW", "/secrets/\x00", api}, {"GET", "/secrets/s?x", "outContentType=application%2Fx-pem-file&" + api},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	s := newSystem(f)
	s.set("kv1", "s", "value")
	want := s.ok("reader", "GET", "kv1", "/secrets/s", nil).raw
	f.Fuzz(func(t *testing.T, method, path, query string) {
		s.t = t
		u := &url.URL{Scheme: "https", Host: "kv1." + suffix, RawQuery: query}
		if p, err := url.PathUnescape(path); err == nil {
			u.Path, u.RawPath = p, path
		} else {
			u.Path = path
		}
		r := httptest.NewRequest("GET", "https://kv1."+suffix+"/", nil)
		r.Method, r.URL = method, u
		r.Header = http.Header{"Authorization": {"Bearer reader"}}
		a := s.do(r) // fails unless the body is JSON
		if a.status >= 500 || a.status >= 400 && (a.code() == "" || a.str("error", "message") == "") {
			t.Errorf("%s %q %q: %d %s", method, path, query, a.status, a.raw)
		}
		if strings.Contains(strings.Join(a.header["X-Ms-Keyvault-Region"], ""), "\n") {
			t.Errorf("headers %v", a.header)
		}
		if got := s.ok("reader", "GET", "kv1", "/secrets/s", nil).raw; got != want {
			t.Errorf("%s %q %q changed the secret: %s", method, path, query, got)
		}
	})
}

// Whatever the body of a set is, it is refused or stored as it was sent.
func FuzzSetBody(f *testing.F) {
	for _, seed := range []string{
		`{"value":"x"}`, `{"value":"\ud83d\udd11","tags":{"a":null}}`, `{"VALUE":"x","value":"y"}`, `{"value":"\u0000"}`, `{"value":"\\ud800"}`, `{"value":"\ud800\\"}`,
		`{"value":"x","attributes":{"exp":1e3}}`, "\xef\xbb\xbf{}", `{"value":"\uD83D\uDD11"}`, `{"value":""}x`, `{"value":"a","contentType":"b"}`,
	} {
		f.Add([]byte(seed))
	}
	s := newSystem(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		s.t = t
		r := httptest.NewRequest("PUT", "https://kv1."+suffix+"/secrets/s?"+api, strings.NewReader(string(body)))
		r.Header.Set("Authorization", "Bearer officer")
		a := s.do(r)
		switch {
		case a.status == 200:
			got := s.ok("reader", "GET", "kv1", "/secrets/s", nil)
			if got.str("value") != a.str("value") || strings.ContainsRune(a.str("value"), '\ufffd') && !strings.Contains(string(body), "\ufffd") && !strings.Contains(strings.ToLower(string(body)), `\ufffd`) {
				t.Errorf("%q is stored as %q", body, got.str("value"))
			}
		case a.status >= 500 || a.code() != "BadParameter":
			t.Errorf("%q: %d %s", body, a.status, a.raw)
		}
	})
}
