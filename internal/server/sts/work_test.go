package sts_test

import (
	"runtime"
	"testing"

	"github.com/podkey/podkey/internal/server/directory"
)

// Whether there is such a user, nobody learns by the time that the answer
// takes: the work is the same. It shows in the memory that the slow hash
// takes, which unlike time can be compared exactly. Not parallel, so that the
// memory is this test's.
func TestUnknownUsersCostTheSameWork(t *testing.T) {
	g := start(t)
	if _, err := g.dir.CreateTenant(t.Context(), directory.Tenant{ID: otherID, Domains: []string{"fabrikam.example"}}); err != nil {
		t.Fatal(err)
	}
	off, err := g.dir.CreateUser(t.Context(), directory.User{TenantID: tenantID, UserPrincipalName: "off@contoso.example"}, password)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.dir.EnableUser(t.Context(), off.ObjectID, false); err != nil {
		t.Fatal(err)
	}
	const slowHash = 19 << 20 // bytes
	for what, c := range map[string]struct{ tenant, name string }{
		"wrong password":   {"organizations", userName},
		"unknown user":     {"organizations", "nobody@contoso.example"},
		"unknown domain":   {"organizations", "ada@nowhere.example"},
		"no domain":        {"organizations", "ada"},
		"another tenant's": {otherID, userName},
		"disabled":         {tenantID, "off@contoso.example"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		g.refuse(g.tokenAt(ownHost, c.tenant, byPassword(c.name, wrong)), 400, "invalid_grant", 50126)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n < slowHash || n > slowHash+slowHash/2 {
			t.Errorf("%s: %d bytes", what, n)
		}
	}
}
