package keyvault_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/server/rbac"
)

// Each test is an attempt to get at a secret, or to harm one, without being
// allowed to.

const hidden = "the-hidden-value"

func (s *system) attack(status int, code, caller, method, vault, target string, body any) answer {
	s.t.Helper()
	a := s.refused(status, code, caller, method, vault, target, body)
	if strings.Contains(a.raw, hidden) {
		s.t.Errorf("%s %s: the answer has the value: %s", method, target, a.raw)
	}
	return a
}

func TestAttackServiceAccountTokenSentToTheVault(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", hidden)
	s.tokens["serviceaccount"] = s.tokens["fromissuer"] // refused by the verifier: the issuer is not ours
	a := s.attack(401, "Unauthorized", "serviceaccount", "GET", "kv1", "/secrets/s", nil)
	if !strings.HasPrefix(a.str("error", "message"), "AKV10032:") {
		t.Errorf("%s", a.raw)
	}
	if line := s.audit.last(t); line["decision"] != audit.Deny || line["operationName"] != "Authentication" || !strings.Contains(line["reason"], "issuer") {
		t.Errorf("%v", line)
	}
}

func TestAttackTokenOfAnotherTenant(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", hidden)
	// The stranger is an officer at home and even has a policy here.
	stranger := s.tokens["stranger"].(audit.Principal)
	s.assign("stranger", rbac.KeyVaultAdministrator, "/")
	for _, m := range []string{"GET", "PUT", "PATCH", "DELETE"} {
		s.attack(401, "Unauthorized", "stranger", m, "kv1", "/secrets/s", `{"value":"x"}`)
		s.attack(401, "Unauthorized", "stranger", m, "pol1", "/secrets/s", `{"value":"x"}`)
	}
	if line := s.audit.last(t); line["decision"] != audit.Deny || line["oid"] != stranger.ObjectID {
		t.Errorf("%v", line)
	}
	// A token that says tenant A of a principal of tenant B.
	stranger.TenantID = tenantA
	s.tokens["impostor"] = stranger
	s.attack(403, "Forbidden", "impostor", "GET", "kv1", "/secrets/s", nil)
}

func TestAttackCrossVaultRead(t *testing.T) {
	s := newSystem(t)
	version := s.set("kv2", "s", hidden).version()
	s.set("kv1", "s", "mine")
	v2, _, err := s.vaults.Get(t.Context(), "kv2")
	if err != nil {
		t.Fatal(err)
	}
	// reader may read all of kv1, and tries to get at kv2 by way of it.
	s.attack(403, "Forbidden", "reader", "GET", "kv2", "/secrets/s", nil)
	s.attack(404, "SecretNotFound", "reader", "GET", "kv1", "/secrets/s/"+version, nil)
	for _, target := range []string{
		"/secrets/..%2F..%2F" + v2.UID + "%2Fs", "/secrets/" + v2.UID + "%2Fs", "/secrets/s%2F..%2F..%2Fkv2", "/secrets/%2E%2E%2Fs", "/secrets/kv2;s",
	} {
		s.attack(400, "BadParameter", "reader", "GET", "kv1", target, nil)
	}
	// By the Host header, against the address of the request line.
	r := httptest.NewRequest("GET", "https://kv1."+suffix+"/secrets/s?"+api, nil)
	r.Header.Set("Authorization", "Bearer reader")
	r.Host = "kv2." + suffix
	s.checkRefusal(s.do(r), 403, "Forbidden", "host")
}

func TestAttackPageTokenOfAnotherVault(t *testing.T) {
	s := newSystem(t)
	for _, name := range []string{"a", "b", "c"} {
		s.set("kv2", name, hidden)
	}
	next := s.ok("officer", "GET", "kv2", "/secrets?maxresults=1&"+api, nil).str("nextLink")
	a := s.ok("reader", "GET", "kv1", strings.TrimPrefix(next, "https://kv2."+suffix), nil)
	if strings.Contains(a.raw, "kv2") || len(a.body["value"].([]any)) != 0 {
		t.Errorf("%s", a.raw)
	}
}

// A role at one secret is for that secret, and gives no listing.
func TestAttackRoleAtOneSecret(t *testing.T) {
	s := newSystem(t)
	s.caller("narrow", tenantA)
	s.assign("narrow", rbac.KeyVaultSecretsOfficer, vaultID("kv1")+"/secrets/mine")
	s.set("kv1", "theirs", hidden)
	s.set("kv1", "mine2", hidden)
	s.ok("narrow", "PUT", "kv1", "/secrets/Mine", map[string]any{"value": "v"})
	s.ok("narrow", "GET", "kv1", "/secrets/mine", nil)
	blob := s.ok("officer", "POST", "kv1", "/secrets/theirs/backup", nil).str("value")
	for _, tt := range [][2]string{
		{"GET", "/secrets/theirs"}, {"GET", "/secrets/mine2"}, {"GET", "/secrets"}, {"GET", "/deletedsecrets"}, {"GET", "/secrets/theirs/versions"},
		{"DELETE", "/secrets/theirs"}, {"POST", "/secrets/theirs/backup"},
		// Text that would extend the id of the secret that is allowed.
		{"GET", "/secrets/mine%2Ftheirs"}, {"GET", "/secrets/mine%2F..%2Ftheirs"}, {"GET", "/secrets/mine%00theirs"},
	} {
		s.attack(403, "Forbidden", "narrow", tt[0], "kv1", tt[1], nil)
	}
	s.attack(403, "Forbidden", "narrow", "POST", "kv1", "/secrets/restore", map[string]any{"value": blob})
}

func TestAttackReaderWrites(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", "v")
	s.set("kv1", "gone", "v")
	s.ok("officer", "DELETE", "kv1", "/secrets/gone", nil)
	before := s.snapshot()
	for _, tt := range [][2]string{
		{"PUT", "/secrets/s"}, {"PUT", "/secrets/new"}, {"PATCH", "/secrets/s"}, {"DELETE", "/secrets/s"}, {"POST", "/secrets/s/backup"},
		{"POST", "/secrets/restore"}, {"POST", "/deletedsecrets/gone/recover"}, {"DELETE", "/deletedsecrets/gone"},
	} {
		s.attack(403, "Forbidden", "reader", tt[0], "kv1", tt[1], `{"value":"x"}`)
	}
	r := httptest.NewRequest("POST", "https://kv1."+suffix+"/secrets/s?"+api, strings.NewReader(`{"value":"x"}`))
	r.Header.Set("Authorization", "Bearer reader")
	r.Header.Set("X-HTTP-Method", "PUT")
	s.checkRefusal(s.do(r), 403, "Forbidden", "method override")
	if after := s.snapshot(); len(after) != len(before) || after["kv1/secrets/s"] != before["kv1/secrets/s"] {
		t.Errorf("%v", after)
	}
}

// Who may not ask learns nothing: the refusal is the same whether the object
// exists, is deleted or disabled, and whatever the parameters are.
func TestAttackProbingForNames(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "there", hidden)
	s.set("kv1", "gone", hidden)
	s.ok("officer", "DELETE", "kv1", "/secrets/gone", nil)
	s.ok("officer", "PUT", "kv1", "/secrets/off", `{"value":"v","attributes":{"enabled":false}}`)
	want := s.attack(403, "Forbidden", "nobody", "GET", "kv1", "/secrets/none", nil).raw
	for _, name := range []string{"there", "gone", "off"} {
		for _, query := range []string{"?" + api, "?", "?api-version=0", "?outContentType=x"} {
			got := s.attack(403, "Forbidden", "nobody", "GET", "kv1", "/secrets/"+name+query, nil).raw
			if strings.ReplaceAll(got, "/"+name+"'", "/none'") != want {
				t.Errorf("%s%s: %s", name, query, got)
			}
		}
	}
}

func TestAttackBackupOfAnotherTenant(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", hidden)
	blob := s.ok("officer", "POST", "kv1", "/secrets/s/backup", nil).str("value")
	if strings.Contains(blob, hidden) || len(blob) < 100 {
		t.Errorf("%s", blob)
	}
	s.attack(400, "BadParameter", "stranger", "POST", "kvb", "/secrets/restore", map[string]any{"value": blob})
	// Also after the other tenant has a key of its own.
	s.ok("stranger", "PUT", "kvb", "/secrets/own", `{"value":"v"}`)
	s.ok("stranger", "POST", "kvb", "/secrets/own/backup", nil)
	s.attack(400, "BadParameter", "stranger", "POST", "kvb", "/secrets/restore", map[string]any{"value": blob})
	for i := 0; i < len(blob); i += 7 { // no bit of it can be changed
		changed := blob[:i] + flip(blob[i]) + blob[i+1:]
		s.attack(400, "BadParameter", "officer", "POST", "kv2", "/secrets/restore", map[string]any{"value": changed})
	}
}

func TestAttackReplayAfterIdentityDeletion(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", hidden)
	s.ok("reader", "GET", "kv1", "/secrets/s", nil)
	s.must(s.directory.DeleteIdentity(t.Context(), identityID("reader")))
	s.attack(403, "Forbidden", "reader", "GET", "kv1", "/secrets/s", nil)
	// An identity made again under its name is another principal.
	s.caller("reader", tenantA)
	s.attack(403, "Forbidden", "reader", "GET", "kv1", "/secrets/s", nil)
}

func TestAttackReadWithoutAuditLine(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", hidden)
	s.audit.err = errors.New("disk full")
	a := s.attack(500, "InternalServerError", "reader", "GET", "kv1", "/secrets/s", nil)
	if strings.Contains(a.raw, "disk") {
		t.Errorf("%s", a.raw)
	}
	s.attack(500, "InternalServerError", "expired", "GET", "kv1", "/secrets/s", nil)
}

func TestAttackFailureOfOursSaysNothing(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", hidden)
	a := s.attack(500, "InternalServerError", "broken", "GET", "kv1", "/secrets/s", nil)
	if strings.Contains(a.raw, "EOF") || a.header.Get("WWW-Authenticate") != "" {
		t.Errorf("%s", a.raw)
	}
}

func TestAttackRoundTheNetworkRules(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", hidden)
	fence := func(rules ...string) {
		n := &keyvault.NetworkACLs{DefaultAction: "Deny"}
		for _, r := range rules {
			n.IPRules = append(n.IPRules, keyvault.IPRule{Value: r})
		}
		s.must(s.vaults.Patch(t.Context(), vaultID("kv1"), keyvault.Patch{Properties: keyvault.Properties{NetworkACLs: n}}))
	}
	from := func(address string, header ...string) int {
		r := httptest.NewRequest("GET", "https://kv1."+suffix+"/secrets/s?"+api, nil)
		r.RemoteAddr = address
		r.Header.Set("Authorization", "Bearer reader")
		for _, h := range header {
			r.Header.Set(h, "10.1.2.3")
		}
		return s.do(r).status
	}
	fence()
	if from("10.1.2.3:1") != 403 {
		t.Error("no rule admits everybody")
	}
	fence("10.1.0.0/16", "2001:db8::1")
	for address, want := range map[string]int{
		"10.1.2.3:1": 200, "10.2.0.1:1": 403, "[::ffff:10.1.2.3]:1": 200, "[2001:db8::1]:1": 200, "[2001:db8::2]:1": 403, "127.0.0.1:1": 403, "@": 403,
	} {
		if got := from(address); got != want {
			t.Errorf("from %s: %d, want %d", address, got, want)
		}
	}
	if got := from("203.0.113.9:1", "X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-Ip"); got != 403 {
		t.Errorf("a header chose the address: %d", got)
	}
	if line := s.audit.last(t); line["decision"] != audit.Deny || line["operationName"] != "SecretGet" || !strings.Contains(line["reason"], "ForbiddenByFirewall") {
		t.Errorf("%v", line)
	}
}

// What the log says of requests has neither values nor tokens.
func TestAttackReadingTheLog(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", hidden)
	s.ok("reader", "GET", "kv1", "/secrets/s", nil)
	s.call("officer", "PUT", "kv1", "/secrets/s", `{"value":"`+hidden+`","tags":1}`)
	s.call("officer", "PUT", "kv1", "/secrets/s", `{"value":"`+hidden+`"`)
	s.call("officer", "PUT", "kv1", "/secrets/s", `{"value":["`+hidden+`"]}`)
	for name, text := range map[string]string{"log": s.log.String(), "audit": s.audit.String()} {
		if strings.Contains(text, hidden) {
			t.Errorf("the %s has a value", name)
		}
	}
	if !strings.Contains(s.log.String(), "pattern=/secrets/{name}") {
		t.Errorf("the log does not name the route:\n%s", s.log.String())
	}
}
