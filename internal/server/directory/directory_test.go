package directory_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

const (
	tenantID = "11111111-1111-4111-8111-111111111111"
	subID    = "22222222-2222-4222-8222-222222222222"
	issuer   = "https://oidc.example.test/cluster/"
	audience = "api://AzureADTokenExchange"
)

var start = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// open returns a directory with one tenant, and a context.
func open(t testing.TB, o directory.Options) (*directory.Directory, context.Context) {
	t.Helper()
	var d *directory.Directory
	if o.Now == nil {
		o.Now = func() time.Time { return start }
	}
	storetest.New(t, "", func(s *store.Store) { d = directory.New(s, o) })
	if _, err := d.CreateTenant(t.Context(), directory.Tenant{ID: tenantID, DisplayName: "Contoso", Domains: []string{"contoso.example"}}); err != nil {
		t.Fatal(err)
	}
	return d, t.Context()
}

func identityID(name string) string {
	return "/subscriptions/" + subID + "/resourceGroups/RG/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name
}

// identity makes a managed identity.
func identity(t testing.TB, d *directory.Directory, name string) directory.ManagedIdentity {
	t.Helper()
	m, created, err := d.PutIdentity(t.Context(), directory.ManagedIdentity{
		ResourceID: identityID(name), Name: name, SubscriptionID: subID, ResourceGroup: "RG", Location: "westeurope", TenantID: tenantID,
	})
	if err != nil || !created {
		t.Fatalf("PutIdentity: created %v, %v", created, err)
	}
	return m
}

func application(t testing.TB, d *directory.Directory, a directory.Application) (directory.Application, directory.ServicePrincipal) {
	t.Helper()
	a.TenantID = tenantID
	a, err := d.CreateApplication(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	sp, err := d.CreateServicePrincipal(t.Context(), directory.ServicePrincipal{TenantID: tenantID, AppID: a.AppID})
	if err != nil {
		t.Fatal(err)
	}
	return a, sp
}

func wantKind(t *testing.T, err error, kind fault.Kind) {
	t.Helper()
	if err == nil || !fault.Is(err, kind) {
		t.Errorf("error %v, want kind %d", err, kind)
	}
}

func TestTenants(t *testing.T) {
	d, ctx := open(t, directory.Options{})
	for _, name := range []string{tenantID, strings.ToUpper(tenantID), "contoso.example", "CONTOSO.example"} {
		got, ok, err := d.Tenant(ctx, name)
		if err != nil || !ok || got.ID != tenantID {
			t.Errorf("Tenant(%q) = %+v, %v, %v", name, got, ok, err)
		}
	}
	for _, name := range []string{"", "common", "fabrikam.example", "11111111-1111-4111-8111-111111111112", "contoso.example\x00", "{" + tenantID + "}"} {
		if _, ok, err := d.Tenant(ctx, name); ok || err != nil {
			t.Errorf("Tenant(%q) = %v, %v", name, ok, err)
		}
	}
	_, err := d.CreateTenant(ctx, directory.Tenant{ID: strings.ToUpper(tenantID)})
	wantKind(t, err, fault.Clash)
	_, err = d.CreateTenant(ctx, directory.Tenant{Domains: []string{"Contoso.Example"}})
	wantKind(t, err, fault.Clash)
	for _, bad := range []directory.Tenant{{ID: "x"}, {Domains: []string{"common"}}, {Domains: []string{"a..b"}}, {Domains: []string{"-a.b"}}, {Domains: []string{"a b.c"}}} {
		_, err := d.CreateTenant(ctx, bad)
		wantKind(t, err, fault.Invalid)
	}
	other, err := d.CreateTenant(ctx, directory.Tenant{Domains: []string{"fabrikam.example"}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := d.Tenants(ctx)
	if err != nil || len(all) != 2 {
		t.Errorf("Tenants = %+v, %v", all, err)
	}
	if got, _, _ := d.Tenant(ctx, "fabrikam.example"); got.ID != other.ID {
		t.Errorf("found %q by domain, want %q", got.ID, other.ID)
	}
}

func TestManagedIdentityIsAClientAndAPrincipal(t *testing.T) {
	d, ctx := open(t, directory.Options{})
	m := identity(t, d, "Reader")

	want := directory.Client{
		Owner: m.PrincipalID, TenantID: tenantID, AppID: m.ClientID, DisplayName: "Reader", Kind: directory.KindManagedIdentity,
		Enabled: true, ServicePrincipalID: m.PrincipalID, ResourceID: identityID("Reader"),
	}
	got, ok, err := d.Client(ctx, strings.ToUpper(tenantID), strings.ToUpper(m.ClientID))
	if err != nil || !ok {
		t.Fatalf("Client: %v, %v", ok, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	p, ok, err := d.Principal(ctx, m.PrincipalID)
	if diff := cmp.Diff(directory.Principal{ObjectID: m.PrincipalID, Kind: directory.PrincipalService, TenantID: tenantID, DisplayName: "Reader", AppID: m.ClientID, Enabled: true}, p); diff != "" || !ok || err != nil {
		t.Errorf("%v %v %s", ok, err, diff)
	}

	t.Run("update changes tags only", func(t *testing.T) {
		u := m
		u.ResourceID, u.Tags, u.ClientID, u.PrincipalID = strings.ToLower(m.ResourceID), map[string]string{"a": "b"}, "", ""
		got, created, err := d.PutIdentity(ctx, u)
		if err != nil || created {
			t.Fatalf("created %v, %v", created, err)
		}
		want := m
		want.Tags, want.Updated = u.Tags, got.Updated
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("location is fixed", func(t *testing.T) {
		u := m
		u.Location = "northeurope"
		_, _, err := d.PutIdentity(ctx, u)
		wantKind(t, err, fault.Clash)
	})
	t.Run("listing by group", func(t *testing.T) {
		identity(t, d, "another")
		other := m
		other.ResourceID, other.ClientID, other.PrincipalID = strings.Replace(identityID("x"), "/RG/", "/RG2/", 1), "", ""
		if _, _, err := d.PutIdentity(ctx, other); err != nil {
			t.Fatal(err)
		}
		for prefix, n := range map[string]int{
			"/subscriptions/" + subID:                         3,
			"/SUBSCRIPTIONS/" + subID + "/resourcegroups/rg":  2,
			"/subscriptions/" + subID + "/resourceGroups/RG/": 2,
			"/subscriptions/" + subID + "/resourceGroups/R":   0,
			"": 3,
		} {
			if got, err := d.Identities(ctx, prefix); err != nil || len(got) != n {
				t.Errorf("Identities(%q): %d, %v, want %d", prefix, len(got), err, n)
			}
		}
	})
	t.Run("client of another tenant", func(t *testing.T) {
		if _, ok, _ := d.Client(ctx, "11111111-1111-4111-8111-111111111112", m.ClientID); ok {
			t.Error("found in another tenant")
		}
	})
	t.Run("unknown tenant", func(t *testing.T) {
		_, _, err := d.PutIdentity(ctx, directory.ManagedIdentity{ResourceID: "/x", Name: "x", TenantID: subID})
		wantKind(t, err, fault.Invalid)
	})
	t.Run("chosen ids are unique", func(t *testing.T) {
		_, _, err := d.PutIdentity(ctx, directory.ManagedIdentity{ResourceID: "/y", Name: "y", TenantID: tenantID, ClientID: m.ClientID})
		wantKind(t, err, fault.Clash)
		_, _, err = d.PutIdentity(ctx, directory.ManagedIdentity{ResourceID: "/y", Name: "y", TenantID: tenantID, PrincipalID: m.PrincipalID})
		wantKind(t, err, fault.Clash)
	})
}

func TestDeletedIdentityLeavesNothing(t *testing.T) {
	d, ctx := open(t, directory.Options{})
	m, other := identity(t, d, "gone"), identity(t, d, "stays")
	for _, owner := range []string{m.PrincipalID, other.PrincipalID} {
		if _, err := d.PutFederated(ctx, owner, credential("kube")); err != nil {
			t.Fatal(err)
		}
	}
	existed, err := d.DeleteIdentity(ctx, strings.ToUpper(m.ResourceID))
	if err != nil || !existed {
		t.Fatalf("DeleteIdentity: %v, %v", existed, err)
	}
	if existed, err := d.DeleteIdentity(ctx, m.ResourceID); existed || err != nil {
		t.Errorf("second DeleteIdentity: %v, %v", existed, err)
	}
	if _, ok, _ := d.Identity(ctx, m.ResourceID); ok {
		t.Error("identity is still there")
	}
	if _, ok, _ := d.Client(ctx, tenantID, m.ClientID); ok {
		t.Error("client is still there")
	}
	if _, ok, _ := d.Principal(ctx, m.PrincipalID); ok {
		t.Error("service principal is still there")
	}
	if cs, _ := d.FederatedAll(ctx, m.PrincipalID); len(cs) != 0 {
		t.Errorf("credentials are still there: %v", cs)
	}
	if cs, _ := d.FederatedAll(ctx, other.PrincipalID); len(cs) != 1 {
		t.Errorf("the other identity's credentials: %v", cs)
	}
	_, err = d.PutFederated(ctx, m.PrincipalID, credential("late"))
	wantKind(t, err, fault.Missing)
	again := identity(t, d, "gone")
	if again.ClientID == m.ClientID || again.PrincipalID == m.PrincipalID {
		t.Error("a new identity of the same name has the old one's ids")
	}
}

func TestApplications(t *testing.T) {
	d, ctx := open(t, directory.Options{})
	a, sp := application(t, d, directory.Application{DisplayName: "api", IdentifierURIs: []string{"api://Orders"}, TokenVersion: 2})

	c, ok, err := d.Client(ctx, tenantID, a.AppID)
	want := directory.Client{
		Owner: a.ObjectID, TenantID: tenantID, AppID: a.AppID, DisplayName: "api", Kind: directory.KindApplication, Enabled: true, ServicePrincipalID: sp.ObjectID,
	}
	if diff := cmp.Diff(want, c); diff != "" || !ok || err != nil {
		t.Errorf("%v %v %s", ok, err, diff)
	}
	for _, name := range []string{a.AppID, strings.ToUpper(a.AppID), "api://Orders", "api://orders"} {
		r, ok, err := d.Resource(ctx, tenantID, name)
		if diff := cmp.Diff(directory.Resource{AppID: a.AppID, DisplayName: "api", TokenVersion: 2, Enabled: true}, r); diff != "" || !ok || err != nil {
			t.Errorf("Resource(%q): %v %v %s", name, ok, err, diff)
		}
	}
	if _, ok, _ := d.Resource(ctx, subID, "api://Orders"); ok {
		t.Error("resource found in another tenant")
	}

	_, err = d.CreateApplication(ctx, directory.Application{TenantID: tenantID, IdentifierURIs: []string{"API://orders"}})
	wantKind(t, err, fault.Clash)
	_, err = d.CreateApplication(ctx, directory.Application{TenantID: tenantID, AppID: strings.ToUpper(a.AppID)})
	wantKind(t, err, fault.Clash)
	_, err = d.CreateApplication(ctx, directory.Application{TenantID: tenantID, ObjectID: sp.ObjectID})
	wantKind(t, err, fault.Clash)
	for _, bad := range []directory.Application{
		{TokenVersion: 3}, {AppID: "x"}, {IdentifierURIs: []string{"orders"}}, {IdentifierURIs: []string{"api://a b"}}, {IdentifierURIs: []string{"api://a", "api://A"}},
	} {
		bad.TenantID = tenantID
		_, err := d.CreateApplication(ctx, bad)
		wantKind(t, err, fault.Invalid)
	}
	_, err = d.CreateServicePrincipal(ctx, directory.ServicePrincipal{TenantID: tenantID, AppID: a.AppID})
	wantKind(t, err, fault.Clash)
	_, err = d.CreateServicePrincipal(ctx, directory.ServicePrincipal{TenantID: tenantID, AppID: subID})
	wantKind(t, err, fault.Missing)

	t.Run("update keeps what is not the caller's", func(t *testing.T) {
		if _, _, err := d.AddSecret(ctx, a.ObjectID, directory.NewSecret{}); err != nil {
			t.Fatal(err)
		}
		got, err := d.UpdateApplication(ctx, a.ObjectID, func(a *directory.Application) error {
			a.AppID, a.Secrets, a.DisplayName, a.IdentifierURIs = subID, nil, "renamed", nil
			return nil
		})
		if err != nil || got.AppID != a.AppID || len(got.Secrets) != 1 || got.DisplayName != "renamed" {
			t.Errorf("%+v, %v", got, err)
		}
		if _, ok, _ := d.Resource(ctx, tenantID, "api://orders"); ok {
			t.Error("old identifier URI still leads to it")
		}
		sp.DisplayName = "renamed" // the principal follows, see the next test
		_, err = d.UpdateApplication(ctx, subID, func(*directory.Application) error { return nil })
		wantKind(t, err, fault.Missing)
	})
	t.Run("lists", func(t *testing.T) {
		b, _ := application(t, d, directory.Application{DisplayName: "another"})
		if as, err := d.Applications(ctx, strings.ToUpper(tenantID)); err != nil || len(as) != 2 {
			t.Errorf("Applications: %d, %v", len(as), err)
		}
		if as, err := d.Applications(ctx, subID); err != nil || len(as) != 0 {
			t.Errorf("another tenant's Applications: %d, %v", len(as), err)
		}
		if sps, err := d.ServicePrincipals(ctx, tenantID); err != nil || len(sps) != 2 {
			t.Errorf("ServicePrincipals: %d, %v", len(sps), err)
		}
		got, ok, err := d.ServicePrincipal(ctx, strings.ToUpper(sp.ObjectID))
		if diff := cmp.Diff(sp, got); diff != "" || !ok || err != nil {
			t.Errorf("%v %v %s", ok, err, diff)
		}
		if existed, err := d.DeleteApplication(ctx, b.ObjectID); !existed || err != nil {
			t.Errorf("DeleteApplication: %v, %v", existed, err)
		}
	})
	t.Run("disabled", func(t *testing.T) {
		if err := d.EnableServicePrincipal(ctx, sp.ObjectID, false); err != nil {
			t.Fatal(err)
		}
		if c, _, _ := d.Client(ctx, tenantID, a.AppID); c.Enabled {
			t.Error("enabled although its service principal is not")
		}
		if p, _, _ := d.Principal(ctx, sp.ObjectID); p.Enabled {
			t.Error("the principal is enabled")
		}
	})
	t.Run("delete", func(t *testing.T) {
		if _, err := d.PutFederated(ctx, a.ObjectID, credential("kube")); err != nil {
			t.Fatal(err)
		}
		_, text, err := d.AddSecret(ctx, a.ObjectID, directory.NewSecret{})
		if err != nil {
			t.Fatal(err)
		}
		before, _, err := d.Client(ctx, tenantID, a.AppID)
		if err != nil {
			t.Fatal(err)
		}
		if existed, err := d.DeleteApplication(ctx, a.ObjectID); err != nil || !existed {
			t.Fatalf("%v, %v", existed, err)
		}
		if _, ok, err := d.VerifySecret(ctx, &before, text); ok || err != nil {
			t.Errorf("the hash of its secret is still there: %v", err)
		}
		if _, ok, _ := d.Client(ctx, tenantID, a.AppID); ok {
			t.Error("client is still there")
		}
		if _, ok, _ := d.Principal(ctx, sp.ObjectID); ok {
			t.Error("service principal is still there")
		}
		if cs, _ := d.FederatedAll(ctx, a.ObjectID); len(cs) != 0 {
			t.Error("credentials are still there")
		}
	})
}

func TestUsers(t *testing.T) {
	d, ctx := open(t, directory.Options{})
	u, err := d.CreateUser(ctx, directory.User{TenantID: tenantID, UserPrincipalName: "Ada@contoso.example", DisplayName: "Ada"}, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tenant, name, password string
		want                   bool
	}{
		{tenantID, "ada@CONTOSO.example", "correct horse", true},
		{tenantID, u.ObjectID, "correct horse", true},
		{tenantID, "Ada@contoso.example", "Correct horse", false},
		{tenantID, "Ada@contoso.example", "", false},
		{tenantID, "bob@contoso.example", "correct horse", false},
		{subID, "Ada@contoso.example", "correct horse", false},
	} {
		got, ok, err := d.VerifyPassword(ctx, c.tenant, c.name, c.password)
		if err != nil || ok != c.want || ok && got.ObjectID != u.ObjectID {
			t.Errorf("VerifyPassword(%q, %q): %v, %v", c.name, c.password, ok, err)
		}
	}
	var us []directory.User
	if err := d.WalkUsers(ctx, tenantID, "", func(u *directory.User) bool { us = append(us, *u); return true }); err != nil || !cmp.Equal(us, []directory.User{u}) {
		t.Errorf("WalkUsers: %+v, %v", us, err)
	}
	p, ok, err := d.Principal(ctx, u.ObjectID)
	if diff := cmp.Diff(directory.Principal{ObjectID: u.ObjectID, Kind: directory.PrincipalUser, TenantID: tenantID, DisplayName: "Ada", Enabled: true}, p); diff != "" || !ok || err != nil {
		t.Errorf("%v %v %s", ok, err, diff)
	}
	_, err = d.CreateUser(ctx, directory.User{TenantID: tenantID, UserPrincipalName: "ADA@contoso.example"}, "another password")
	wantKind(t, err, fault.Clash)
	for _, bad := range []struct{ name, password string }{
		{"ada", "long enough"}, {"@contoso.example", "long enough"}, {"a@fabrikam.example", "long enough"}, {"b@contoso.example", "short"},
		{"c@contoso.example", strings.Repeat("x", 257)}, {"d\n@contoso.example", "long enough"},
	} {
		_, err := d.CreateUser(ctx, directory.User{TenantID: tenantID, UserPrincipalName: bad.name}, bad.password)
		wantKind(t, err, fault.Invalid)
	}
	if err := d.SetPassword(ctx, u.ObjectID, "battery staple"); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := d.VerifyPassword(ctx, tenantID, u.UserPrincipalName, "correct horse"); ok {
		t.Error("the old password still works")
	}
	if _, ok, _ := d.VerifyPassword(ctx, tenantID, u.UserPrincipalName, "battery staple"); !ok {
		t.Error("the new password does not work")
	}
	for _, on := range []bool{false, true} {
		if err := d.EnableUser(ctx, u.ObjectID, on); err != nil {
			t.Fatal(err)
		}
		_, ok, err := d.VerifyPassword(ctx, tenantID, u.UserPrincipalName, "battery staple")
		if p, _, _ := d.Principal(ctx, u.ObjectID); ok != on || p.Enabled != on || err != nil {
			t.Errorf("enabled %v: password right %v, principal enabled %v, %v", on, ok, p.Enabled, err)
		}
	}
	wantKind(t, d.EnableUser(ctx, subID, true), fault.Missing)
	wantKind(t, d.SetPassword(ctx, subID, "battery staple"), fault.Missing)
	if existed, err := d.DeleteUser(ctx, u.ObjectID); !existed || err != nil {
		t.Errorf("DeleteUser: %v, %v", existed, err)
	}
	if _, ok, _ := d.VerifyPassword(ctx, tenantID, u.UserPrincipalName, "battery staple"); ok {
		t.Error("a deleted user's password works")
	}
}

// TestRedirectURIs: what people can be sent back to is one kind of address,
// that other formats cannot misread.
func TestRedirectURIs(t *testing.T) {
	d, ctx := open(t, directory.Options{})
	for what, r := range map[string]directory.Redirects{
		"a semicolon in the host": {Web: []string{"https://shop.example;script-src"}},
		"a comma in the host":     {SPA: []string{"https://shop.example,evil.example/"}},
		"a wildcard host":         {Web: []string{"https://*.shop.example/"}},
		"an underscore":           {Web: []string{"https://my_shop.example/"}},
		"an empty port":           {SPA: []string{"https://shop.example:/"}},
		"an empty port there":     {Public: []string{"http://localhost:"}},
		"a zone":                  {Web: []string{"https://[fe80::1%25eth0]/"}},
		"web and spa":             {Web: []string{"https://shop.example/"}, SPA: []string{"https://shop.example/"}},
		"web and public":          {Web: []string{"http://localhost"}, Public: []string{"http://localhost"}},
		"a fragment":              {Public: []string{"http://localhost/#x"}},
		"a script":                {Public: []string{"JavaScript:alert(1)"}},
	} {
		_, err := d.CreateApplication(ctx, directory.Application{TenantID: tenantID, Redirects: r})
		wantKind(t, err, fault.Invalid)
		if err != nil && !strings.Contains(err.Error(), "redirect URI") {
			t.Errorf("%s: %v", what, err)
		}
	}
	r := directory.Redirects{Web: []string{"https://shop.example/", "https://shop.example"}, SPA: []string{"https://[2001:db8::1]:8443/"}, Public: []string{"http://localhost", "msal1://auth"}}
	a, _ := application(t, d, directory.Application{Redirects: r})
	c, _, err := d.Client(ctx, tenantID, a.AppID)
	if diff := cmp.Diff(r, c.Redirects); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}
