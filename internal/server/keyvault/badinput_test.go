package keyvault_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// snapshot is everything that a client can see of the vaults of tenant A.
func (s *system) snapshot() map[string]string {
	s.t.Helper()
	seen := map[string]string{}
	for _, vault := range []string{"kv1", "kv2"} {
		for _, collection := range []string{"/secrets", "/deletedsecrets"} {
			ids, _ := s.pages("officer", vault, collection+"?"+api)
			for _, id := range ids {
				name := id[strings.LastIndexByte(id, '/')+1:]
				seen[vault+collection+"/"+name] = s.ok("officer", "GET", vault, collection+"/"+name, nil).raw
				if collection == "/secrets" {
					versions, _ := s.pages("officer", vault, "/secrets/"+name+"/versions?"+api)
					seen[vault+collection+"/"+name+"/versions"] = strings.Join(versions, " ")
				}
			}
		}
	}
	return seen
}

// Each malformed request gets the plane's own body with a status of the 400s,
// and changes nothing.
func TestBadInput(t *testing.T) {
	s := newSystem(t)
	current := s.set("kv1", "s", "value").version()
	s.set("kv1", "gone", "value")
	s.ok("officer", "DELETE", "kv1", "/secrets/gone", nil)
	blob := s.ok("officer", "POST", "kv1", "/secrets/s/backup", nil).str("value")
	before := s.snapshot()

	const put, patch, get, post, del = "PUT", "PATCH", "GET", "POST", "DELETE"
	tests := []struct {
		name           string
		method, target string
		body           any
		status         int
		code           string
	}{
		// Bodies.
		{"no body", put, "/secrets/s", nil, 400, "BadParameter"},
		{"empty body", put, "/secrets/s", "", 400, "BadParameter"},
		{"blank body", put, "/secrets/s", " \n", 400, "BadParameter"},
		{"half a body", put, "/secrets/s", `{"value":"x"`, 400, "BadParameter"},
		{"half a string", put, "/secrets/s", `{"value":"x`, 400, "BadParameter"},
		{"two bodies", put, "/secrets/s", `{"value":"x"}{"value":"y"}`, 400, "BadParameter"},
		{"trailing comma", put, "/secrets/s", `{"value":"x",}`, 400, "BadParameter"},
		{"array", put, "/secrets/s", `["value"]`, 400, "BadParameter"},
		{"string", put, "/secrets/s", `"value"`, 400, "BadParameter"},
		{"null", put, "/secrets/s", `null`, 400, "BadParameter"},
		{"no value", put, "/secrets/s", `{}`, 400, "BadParameter"},
		{"null value", put, "/secrets/s", `{"value":null}`, 400, "BadParameter"},
		{"number value", put, "/secrets/s", `{"value":123456}`, 400, "BadParameter"},
		{"object value", put, "/secrets/s", `{"value":{"a":"b"}}`, 400, "BadParameter"},
		{"enabled as text", put, "/secrets/s", `{"value":"x","attributes":{"enabled":"true"}}`, 400, "BadParameter"},
		{"attributes as list", put, "/secrets/s", `{"value":"x","attributes":[]}`, 400, "BadParameter"},
		{"fraction of a second", put, "/secrets/s", `{"value":"x","attributes":{"exp":1.5}}`, 400, "BadParameter"},
		{"time as text", put, "/secrets/s", `{"value":"x","attributes":{"exp":"2030-01-01"}}`, 400, "BadParameter"},
		{"time beyond 64 bits", put, "/secrets/s", `{"value":"x","attributes":{"nbf":99999999999999999999}}`, 400, "BadParameter"},
		{"tags as list", put, "/secrets/s", `{"value":"x","tags":["a"]}`, 400, "BadParameter"},
		{"tag as number", put, "/secrets/s", `{"value":"x","tags":{"a":1}}`, 400, "BadParameter"},
		{"content type as number", put, "/secrets/s", `{"value":"x","contentType":1}`, 400, "BadParameter"},
		{"not UTF-8", put, "/secrets/s", "{\"value\":\"a\xff\"}", 400, "BadParameter"},
		{"UTF-16", put, "/secrets/s", "\xfe\xff\x00{", 400, "BadParameter"},
		{"half a character", put, "/secrets/s", `{"value":"\ud83d"}`, 400, "BadParameter"},
		{"the other half", put, "/secrets/s", `{"value":"\udd11"}`, 400, "BadParameter"},
		{"halves exchanged", put, "/secrets/s", `{"value":"\udd11\ud83d"}`, 400, "BadParameter"},
		{"deep nesting", put, "/secrets/s", strings.Repeat("[", 100_000), 400, "BadParameter"},
		{"value too long", put, "/secrets/s", map[string]any{"value": strings.Repeat("x", 25_601)}, 400, "BadParameter"},
		{"body too long", put, "/secrets/s", map[string]any{"value": strings.Repeat("x", 1<<20)}, 413, "BadParameter"},
		{"long member that is ignored", put, "/secrets/s", map[string]any{"value": "", "other": strings.Repeat("x", 1<<20)}, 413, "BadParameter"},
		{"update with bad JSON", patch, "/secrets/s", `{`, 400, "BadParameter"},
		{"update with wrong type", patch, "/secrets/s", `{"contentType":{}}`, 400, "BadParameter"},
		{"update of no body", patch, "/secrets/s/" + current, nil, 400, "BadParameter"},

		// Names, versions and paths.
		{"underscore", put, "/secrets/a_b", `{"value":"x"}`, 400, "BadParameter"},
		{"dot in name", put, "/secrets/a.b", `{"value":"x"}`, 400, "BadParameter"},
		{"blank in name", put, "/secrets/a%20b", `{"value":"x"}`, 400, "BadParameter"},
		{"slash in name", put, "/secrets/a%2Fb", `{"value":"x"}`, 400, "BadParameter"},
		{"encoded slash at the end", put, "/secrets/a%2F", `{"value":"x"}`, 400, "BadParameter"},
		{"null byte", put, "/secrets/a%00", `{"value":"x"}`, 400, "BadParameter"},
		{"line break", get, "/secrets/a%0d%0aX-Bad:1", nil, 400, "BadParameter"},
		{"not ASCII", put, "/secrets/%C3%A9", `{"value":"x"}`, 400, "BadParameter"},
		{"Kelvin sign", get, "/secrets/%E2%84%AA", nil, 400, "BadParameter"},
		{"not UTF-8 in path", get, "/secrets/%ff", nil, 400, "BadParameter"},
		{"percent twice", get, "/secrets/%2573", nil, 400, "BadParameter"},
		{"dot segment", get, "/secrets/../secrets/s", nil, 400, "BadParameter"},
		{"encoded dot segment", get, "/secrets/%2e%2e", nil, 400, "BadParameter"},
		{"long name", get, "/secrets/" + strings.Repeat("n", 128), nil, 400, "BadParameter"},
		{"short version", get, "/secrets/s/abc", nil, 404, "SecretNotFound"},
		{"version of other letters", get, "/secrets/s/" + strings.Repeat("g", 32), nil, 404, "SecretNotFound"},
		{"version with a slash", get, "/secrets/s/" + current[:30] + "%2F", nil, 404, "SecretNotFound"},
		{"update of a bad version", patch, "/secrets/s/abc", `{}`, 404, "SecretNotFound"},
		{"segment too many", get, "/secrets/s/" + current + "/more", nil, 404, "NotFound"},
		{"unknown collection", get, "/secret/s", nil, 404, "NotFound"},
		{"unknown verb", post, "/secrets/s/burn", `{}`, 405, "MethodNotAllowed"},
		{"get of backup", post, "/secrets", `{}`, 405, "MethodNotAllowed"},
		{"delete of a version", del, "/secrets/s/" + current, nil, 405, "MethodNotAllowed"},
		{"put of a version", put, "/secrets/s/" + current, `{"value":"x"}`, 405, "MethodNotAllowed"},
		{"put of a deleted one", put, "/deletedsecrets/gone", `{"value":"x"}`, 405, "MethodNotAllowed"},
		{"recover by get", get, "/deletedsecrets/gone/recover", nil, 405, "MethodNotAllowed"},
		{"other method", "LOCK", "/secrets/s", nil, 405, "MethodNotAllowed"},
		{"head", "HEAD", "/secrets/s", nil, 405, "MethodNotAllowed"},
		{"options", "OPTIONS", "/secrets/s", nil, 405, "MethodNotAllowed"},

		// Query.
		{"no api-version", get, "/secrets/s?x=1", nil, 400, "BadParameter"},
		{"empty api-version", get, "/secrets/s?api-version=", nil, 400, "BadParameter"},
		{"unknown api-version", get, "/secrets/s?api-version=2099-01-01", nil, 400, "BadParameter"},
		{"api-version with a blank", get, "/secrets/s?api-version=7.4+", nil, 400, "BadParameter"},
		{"api-version in capitals", get, "/secrets/s?api-version=2026-05-01-PREVIEW", nil, 400, "BadParameter"},
		{"api-version twice", get, "/secrets/s?api-version=7.4&api-version=7.4", nil, 400, "BadParameter"},
		{"api-version with more", get, "/secrets/s?api-version=7.4;x=1", nil, 400, "BadParameter"},
		{"malformed query", get, "/secrets/s?api-version=%zz", nil, 400, "BadParameter"},
		{"api-version not UTF-8", get, "/secrets/s?api-version=%ff", nil, 400, "BadParameter"},
		{"maxresults 0", get, "/secrets?maxresults=0&" + api, nil, 400, "BadParameter"},
		{"maxresults 26", get, "/secrets?maxresults=26&" + api, nil, 400, "BadParameter"},
		{"maxresults negative", get, "/secrets?maxresults=-1&" + api, nil, 400, "BadParameter"},
		{"maxresults of letters", get, "/secrets?maxresults=all&" + api, nil, 400, "BadParameter"},
		{"maxresults in hexadecimal", get, "/secrets?maxresults=0x5&" + api, nil, 400, "BadParameter"},
		{"maxresults with a zero in front", get, "/secrets?maxresults=05&" + api, nil, 400, "BadParameter"},
		{"empty maxresults", get, "/secrets?maxresults=&" + api, nil, 400, "BadParameter"},
		{"skiptoken of no base64", get, "/secrets?$skiptoken=*&" + api, nil, 400, "BadParameter"},
		{"empty skiptoken", get, "/secrets?$skiptoken=&" + api, nil, 400, "BadParameter"},
		{"skiptoken of another listing", get, "/secrets?$skiptoken=MTpkZWxldGVkc2VjcmV0czpz&" + api, nil, 400, "BadParameter"},
		{"skiptoken with a slash inside", get, "/secrets?$skiptoken=MTpzZWNyZXRzOi4uL2s&" + api, nil, 400, "BadParameter"},
		{"skiptoken with padding", get, "/secrets?$skiptoken=MTpzZWNyZXRzOnM=&" + api, nil, 400, "BadParameter"},
		{"outContentType", get, "/secrets/s?outContentType=text/plain&" + api, nil, 400, "BadParameter"},
		{"outContentType of a secret that is no certificate", get, "/secrets/s?outContentType=application/x-pem-file&" + api, nil, 400, "BadParameter"},

		// Backups.
		{"restore of nothing", post, "/secrets/restore", `{}`, 400, "BadParameter"},
		{"restore of no base64", post, "/secrets/restore", `{"value":"%%%"}`, 400, "BadParameter"},
		{"restore of other base64", post, "/secrets/restore", `{"value":"UEtCMQ"}`, 400, "BadParameter"},
		{"restore of a cut blob", post, "/secrets/restore", map[string]any{"value": blob[:len(blob)-8]}, 400, "BadParameter"},
		{"restore of a changed blob", post, "/secrets/restore", map[string]any{"value": blob[:40] + flip(blob[40]) + blob[41:]}, 400, "BadParameter"},
		{"restore of a number", post, "/secrets/restore", `{"value":1}`, 400, "BadParameter"},

		// Objects that are not there.
		{"unknown secret", get, "/secrets/none", nil, 404, "SecretNotFound"},
		{"unknown deleted secret", get, "/deletedsecrets/none", nil, 404, "SecretNotFound"},
		{"delete of unknown", del, "/secrets/none", nil, 404, "SecretNotFound"},
		{"set of a deleted one", put, "/secrets/gone", `{"value":"x"}`, 409, "Conflict"},
		{"restore of one that is there", post, "/secrets/restore", map[string]any{"value": blob}, 409, "Conflict"},
		{"a key", get, "/keys/k", nil, 404, "ObjectTypeNotSupported"},
		{"a certificate", put, "/certificates/c/x/y/z", nil, 404, "ObjectTypeNotSupported"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			target := tt.target
			if !strings.Contains(target, "?") {
				target += "?" + api
			}
			a := s.raw("officer", tt.method, "kv1", target, tt.body)
			s.checkRefusal(a, tt.status, tt.code, tt.name)
			if strings.Contains(a.raw, "123456") && tt.name == "number value" {
				t.Errorf("the answer repeats the value: %s", a.raw)
			}
		})
	}
	if d := cmp.Diff(before, s.snapshot()); d != "" {
		t.Errorf("something has changed:\n%s", d)
	}
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

// raw is call for targets that a URL parser would refuse: the request is put
// together by hand, as it comes off the wire.
func (s *system) raw(caller, method, vault, target string, body any) answer {
	s.t.Helper()
	path, query, _ := strings.Cut(target, "?")
	r := httptest.NewRequest(method, "https://"+vault+"."+suffix+"/", nil)
	text := ""
	switch b := body.(type) {
	case nil:
	case string:
		text = b
	default:
		text = fmt.Sprintf(`{"value":%q}`, b.(map[string]any)["value"])
		if other, ok := b.(map[string]any)["other"]; ok {
			text = fmt.Sprintf(`{"value":"","other":%q}`, other)
		}
	}
	r2, err := http.NewRequest(method, "https://"+vault+"."+suffix+path, strings.NewReader(text))
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	r.URL, r.Body, r.ContentLength = r2.URL, r2.Body, r2.ContentLength
	r.URL.RawQuery = query
	r.Header.Set("Authorization", "Bearer "+caller)
	return s.do(r)
}

func TestBadHeaders(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", "value")
	before := s.snapshot()
	for name, tt := range map[string]struct {
		header http.Header
		status int
		code   string
	}{
		"two tokens":         {http.Header{"Authorization": {"Bearer nobody", "Bearer officer"}}, 400, "BadParameter"},
		"two content types":  {http.Header{"Authorization": {"Bearer officer"}, "Content-Type": {"application/json", "application/json"}}, 400, "BadParameter"},
		"other content type": {http.Header{"Authorization": {"Bearer officer"}, "Content-Type": {"text/plain"}}, 415, "BadParameter"},
		"form":               {http.Header{"Authorization": {"Bearer officer"}, "Content-Type": {"application/x-www-form-urlencoded"}}, 415, "BadParameter"},
		"broken type":        {http.Header{"Authorization": {"Bearer officer"}, "Content-Type": {";;"}}, 415, "BadParameter"},
		"other charset":      {http.Header{"Authorization": {"Bearer officer"}, "Content-Type": {"application/json; charset=utf-16"}}, 415, "BadParameter"},
		"no token":           {http.Header{}, 401, "Unauthorized"},
		"empty token":        {http.Header{"Authorization": {"Bearer "}}, 401, "Unauthorized"},
		"scheme alone":       {http.Header{"Authorization": {"Bearer"}}, 401, "Unauthorized"},
		"two in one":         {http.Header{"Authorization": {"Bearer officer, Bearer officer"}}, 401, "Unauthorized"},
	} {
		r := httptest.NewRequest("PUT", "https://kv1."+suffix+"/secrets/s?"+api, strings.NewReader(`{"value":"other"}`))
		r.Header = tt.header
		s.checkRefusal(s.do(r), tt.status, tt.code, name)
	}
	if d := cmp.Diff(before, s.snapshot()); d != "" {
		t.Errorf("something has changed:\n%s", d)
	}
}

func TestClientRequestIDIsNotAnyText(t *testing.T) {
	s := newSystem(t)
	for sent, echoed := range map[string]string{
		"5a1b2c3d-0000-4000-8000-00000000000f":  "5a1b2c3d-0000-4000-8000-00000000000f",
		"not an id":                             "",
		"<script>alert(1)</script>------------": "",
	} {
		r := httptest.NewRequest("GET", "https://kv1."+suffix+"/secrets/s?"+api, nil)
		r.Header.Set("X-Ms-Client-Request-Id", sent)
		if got := s.do(r).header.Get("X-Ms-Client-Request-Id"); got != echoed {
			t.Errorf("%q is echoed as %q", sent, got)
		}
	}
}
