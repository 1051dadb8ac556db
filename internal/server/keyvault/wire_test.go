package keyvault_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web/wiretest"
)

func TestWire(t *testing.T) {
	wiretest.Run(t, "testdata/wire/*.txtar", func(t *testing.T) (http.Handler, map[string]string) {
		s := newSystem(t)
		officer := s.tokens["officer"].(audit.Principal)
		s.must(s.vaults.ChangePolicies(t.Context(), vaultID("pol1"), keyvault.AddPolicies, []rbac.AccessPolicy{{
			TenantID: tenantA, ObjectID: officer.ObjectID, Permissions: rbac.Permissions{Secrets: []string{"Set", "List"}},
		}}, "me"))
		s.vault("protected", func(sp *keyvault.Spec) {
			yes, days := true, 30
			sp.Properties.PurgeProtection, sp.Properties.RetentionDays = &yes, &days
		})
		s.vault("closed", func(sp *keyvault.Spec) {
			access := "Disabled"
			sp.Properties.PublicNetworkAccess = &access
		})
		s.vault("fenced", func(sp *keyvault.Spec) {
			sp.Properties.NetworkACLs = &keyvault.NetworkACLs{DefaultAction: "Deny", IPRules: []keyvault.IPRule{{Value: "198.51.100.0/24"}}}
		})
		vars := map[string]string{
			"kv1": "kv1." + suffix, "kv2": "kv2." + suffix, "pol1": "pol1." + suffix, "kvb": "kvb." + suffix,
			"protected": "protected." + suffix, "closed": "closed." + suffix, "fenced": "fenced." + suffix,
			"resource": "https://" + suffix, "login": "https://login.podkey.localhost:8443",
			"tenant": tenantA, "tenantb": tenantB, "sub": subA,
			"api": api, "now": "1800000000", "purge90": "1807776000", "purge30": "1802592000",
			"large": strings.Repeat("x", 25_600), "toolarge": strings.Repeat("x", 25_601),
		}
		for _, name := range []string{"officer", "reader", "nobody", "stranger"} {
			p := s.tokens[name].(audit.Principal)
			vars[name+"_oid"], vars[name+"_appid"] = p.ObjectID, p.AppID
		}
		return s.handler, vars
	})
}
