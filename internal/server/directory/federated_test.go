package directory_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/directory"
)

// credential is a valid one whose subject depends on its name.
func credential(name string) directory.FederatedCredential {
	return directory.FederatedCredential{
		Name: name, Issuer: issuer, Subject: "system:serviceaccount:shop:" + name, Audiences: []string{audience}, Description: "for " + name,
	}
}

func TestFederatedCredentialRules(t *testing.T) {
	d, ctx := open(t, directory.Options{AllowLoopback: true})
	owner := identity(t, d, "m").PrincipalID
	long := strings.Repeat("é", 600)
	for _, c := range []struct {
		name string
		edit func(*directory.FederatedCredential)
		ok   bool
	}{
		{"as it should be", func(*directory.FederatedCredential) {}, true},
		{"shortest name", func(c *directory.FederatedCredential) { c.Name = "a-1" }, true},
		{"longest name", func(c *directory.FederatedCredential) { c.Name = strings.Repeat("a", 120) }, true},
		{"name as azwi gives it", func(c *directory.FederatedCredential) { c.Name = "5Frx_q5PpeP09cXWfkbDVwCOg5IVRmmKE3BUKT4hP4I=" }, true},
		{"name with = inside", func(c *directory.FederatedCredential) { c.Name = "a=bc" }, false},
		{"name with too many =", func(c *directory.FederatedCredential) { c.Name = "abc===" }, false},
		{"name of = only", func(c *directory.FederatedCredential) { c.Name = "a==" }, false},
		{"name too short", func(c *directory.FederatedCredential) { c.Name = "ab" }, false},
		{"name too long", func(c *directory.FederatedCredential) { c.Name = strings.Repeat("a", 121) }, false},
		{"name begins with a dash", func(c *directory.FederatedCredential) { c.Name = "-ab" }, false},
		{"name begins with an underscore", func(c *directory.FederatedCredential) { c.Name = "_ab" }, false},
		{"name with a dot", func(c *directory.FederatedCredential) { c.Name = "a.b" }, false},
		{"name with a slash", func(c *directory.FederatedCredential) { c.Name = "a/b/c" }, false},
		{"name with a letter of another script", func(c *directory.FederatedCredential) { c.Name = "naïve" }, false},
		{"no issuer", func(c *directory.FederatedCredential) { c.Issuer = "" }, false},
		{"http issuer", func(c *directory.FederatedCredential) { c.Issuer = "http://oidc.example.test" }, false},
		{"http issuer on a loopback address", func(c *directory.FederatedCredential) { c.Issuer = "http://127.0.0.1:8080/x" }, true},
		{"http issuer on localhost", func(c *directory.FederatedCredential) { c.Issuer = "http://localhost:8080" }, true},
		{"http issuer that only begins like loopback", func(c *directory.FederatedCredential) { c.Issuer = "http://127.0.0.1.example.test" }, false},
		{"issuer without scheme", func(c *directory.FederatedCredential) { c.Issuer = "oidc.example.test" }, false},
		{"issuer without host", func(c *directory.FederatedCredential) { c.Issuer = "https:///x" }, false},
		{"issuer of another scheme", func(c *directory.FederatedCredential) { c.Issuer = "file:///etc/passwd" }, false},
		{"issuer with user", func(c *directory.FederatedCredential) { c.Issuer = "https://a:b@oidc.example.test" }, false},
		{"issuer with query", func(c *directory.FederatedCredential) { c.Issuer = "https://oidc.example.test/?a=b" }, false},
		{"issuer with empty query", func(c *directory.FederatedCredential) { c.Issuer = "https://oidc.example.test/?" }, false},
		{"issuer with fragment", func(c *directory.FederatedCredential) { c.Issuer = "https://oidc.example.test/#" }, false},
		{"issuer with blank", func(c *directory.FederatedCredential) { c.Issuer = issuer + " " }, false},
		{"issuer with line break", func(c *directory.FederatedCredential) { c.Issuer = issuer + "\n" }, false},
		{"longest issuer", func(c *directory.FederatedCredential) {
			c.Issuer = issuer + strings.Repeat("a", 600-len(issuer))
		}, true},
		{"issuer too long", func(c *directory.FederatedCredential) { c.Issuer = issuer + strings.Repeat("a", 601-len(issuer)) }, false},
		{"no subject", func(c *directory.FederatedCredential) { c.Subject = "" }, false},
		{"longest subject", func(c *directory.FederatedCredential) { c.Subject = long }, true},
		{"subject too long", func(c *directory.FederatedCredential) { c.Subject = long + "é" }, false},
		{"subject with control character", func(c *directory.FederatedCredential) { c.Subject = "a\x00b" }, false},
		{"subject that is not UTF-8", func(c *directory.FederatedCredential) { c.Subject = "a\xff" }, false},
		{"subject with blank at the end", func(c *directory.FederatedCredential) { c.Subject += " " }, false},
		{"no audience", func(c *directory.FederatedCredential) { c.Audiences = nil }, false},
		{"empty audience", func(c *directory.FederatedCredential) { c.Audiences = []string{""} }, false},
		{"two audiences", func(c *directory.FederatedCredential) { c.Audiences = []string{"a", "b"} }, false},
		{"longest audience", func(c *directory.FederatedCredential) { c.Audiences = []string{long} }, true},
		{"audience too long", func(c *directory.FederatedCredential) { c.Audiences = []string{long + "é"} }, false},
		{"no description", func(c *directory.FederatedCredential) { c.Description = "" }, true},
		{"description too long", func(c *directory.FederatedCredential) { c.Description = long + "é" }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cred := credential("kube")
			c.edit(&cred)
			_, err := d.PutFederated(ctx, owner, cred)
			if c.ok {
				if err != nil {
					t.Fatal(err)
				}
				got, ok, err := d.Federated(ctx, owner, strings.ToUpper(cred.Name))
				if diff := cmp.Diff(cred, got); diff != "" || !ok || err != nil {
					t.Errorf("%v %v %s", ok, err, diff)
				}
				if existed, err := d.DeleteFederated(ctx, owner, cred.Name); !existed || err != nil {
					t.Errorf("DeleteFederated: %v, %v", existed, err)
				}
				return
			}
			wantKind(t, err, fault.Invalid)
			if cs, _ := d.FederatedAll(ctx, owner); len(cs) != 0 {
				t.Errorf("refused, and yet stored: %v", cs)
			}
		})
	}
	t.Run("http on loopback needs the option", func(t *testing.T) {
		strict, ctx := open(t, directory.Options{})
		owner := identity(t, strict, "m").PrincipalID
		cred := credential("kube")
		cred.Issuer = "http://127.0.0.1:8080"
		_, err := strict.PutFederated(ctx, owner, cred)
		wantKind(t, err, fault.Invalid)
	})
}

func TestFederatedCredentialsOfOneOwner(t *testing.T) {
	d, ctx := open(t, directory.Options{FederatedLimit: 20})
	owner := identity(t, d, "m").PrincipalID
	inner := func(err error) string {
		if f, ok := fault.As(err); ok {
			return f.Inner
		}
		return ""
	}

	created, err := d.PutFederated(ctx, owner, credential("kube"))
	if err != nil || !created {
		t.Fatalf("%v, %v", created, err)
	}
	created, err = d.PutFederated(ctx, owner, credential("kube"))
	if err != nil || created {
		t.Errorf("same again: created %v, %v", created, err)
	}
	// The name is the same in any case and keeps its first spelling.
	upper := credential("KUBE")
	if created, err = d.PutFederated(ctx, owner, upper); err != nil || created {
		t.Errorf("name in capitals: created %v, %v", created, err)
	}
	if got, _, _ := d.Federated(ctx, owner, "kube"); got.Name != "kube" || got.Subject != upper.Subject {
		t.Errorf("after the update: %+v", got)
	}
	twin := upper
	twin.Name = "twin"
	_, err = d.PutFederated(ctx, owner, twin)
	if wantKind(t, err, fault.Invalid); inner(err) != "IssuerSubjectExists" {
		t.Errorf("same issuer and subject under another name: %v", err)
	}
	// Another spelling of issuer or subject is another credential.
	twin.Subject = strings.ToLower(twin.Subject)
	if _, err := d.PutFederated(ctx, owner, twin); err != nil {
		t.Error(err)
	}
	other := identity(t, d, "other").PrincipalID
	if _, err := d.PutFederated(ctx, other, upper); err != nil {
		t.Errorf("same credential of another identity: %v", err)
	}

	for i := range 18 {
		if _, err := d.PutFederated(ctx, owner, credential(fmt.Sprint("more", i))); err != nil {
			t.Fatal(err)
		}
	}
	_, err = d.PutFederated(ctx, owner, credential("one-too-many"))
	if wantKind(t, err, fault.Invalid); inner(err) != "LimitReached" {
		t.Errorf("the 21st: %v", err)
	}
	if _, err := d.PutFederated(ctx, owner, credential("more3")); err != nil {
		t.Errorf("an update at the limit: %v", err)
	}
	if cs, err := d.FederatedAll(ctx, strings.ToUpper(owner)); err != nil || len(cs) != 20 {
		t.Errorf("%d credentials, %v", len(cs), err)
	}
	_, err = d.PutFederated(ctx, tenantID, credential("kube"))
	wantKind(t, err, fault.Missing)
	_, err = d.PutFederated(ctx, "", credential("kube"))
	wantKind(t, err, fault.Missing)
	_, sp := application(t, d, directory.Application{})
	_, err = d.PutFederated(ctx, sp.ObjectID, credential("kube"))
	wantKind(t, err, fault.Missing) // an application's belong to the application
}

func TestConcurrentFederatedWrites(t *testing.T) {
	d, ctx := open(t, directory.Options{FederatedLimit: 5})
	run := func(n int, f func(i int) error) (succeeded int) {
		var wg sync.WaitGroup
		var good atomic.Int32
		for i := range n {
			wg.Go(func() {
				switch err := f(i); {
				case err == nil:
					good.Add(1)
				case !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Missing):
					t.Errorf("writer %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		return int(good.Load())
	}
	t.Run("the limit holds", func(t *testing.T) {
		owner := identity(t, d, "limit").PrincipalID
		n := run(16, func(i int) error {
			_, err := d.PutFederated(ctx, owner, credential(fmt.Sprint("cred", i)))
			return err
		})
		if cs, _ := d.FederatedAll(ctx, owner); n != 5 || len(cs) != 5 {
			t.Errorf("%d writes succeeded, %d credentials are there, want 5", n, len(cs))
		}
	})
	t.Run("issuer and subject stay unique", func(t *testing.T) {
		owner := identity(t, d, "unique").PrincipalID
		n := run(16, func(i int) error {
			c := credential("same")
			c.Name = fmt.Sprint("name", i)
			_, err := d.PutFederated(ctx, owner, c)
			return err
		})
		if cs, _ := d.FederatedAll(ctx, owner); n != 1 || len(cs) != 1 {
			t.Errorf("%d writes succeeded, %d credentials are there, want 1", n, len(cs))
		}
	})
	t.Run("one identity per resource id", func(t *testing.T) {
		var created atomic.Int32
		run(16, func(int) error {
			_, fresh, err := d.PutIdentity(ctx, directory.ManagedIdentity{ResourceID: identityID("race"), Name: "race", Location: "l", TenantID: tenantID})
			if fresh {
				created.Add(1)
			}
			return err
		})
		sps, err := d.ServicePrincipals(ctx, tenantID)
		n := 0
		for _, sp := range sps {
			if sp.DisplayName == "race" {
				n++
			}
		}
		if created.Load() != 1 || n != 1 || err != nil {
			t.Errorf("created %d times, %d service principals, %v", created.Load(), n, err)
		}
	})
	t.Run("none survives its identity", func(t *testing.T) {
		for range 5 {
			m := identity(t, d, "short-lived")
			run(8, func(i int) error {
				if i == 3 {
					_, err := d.DeleteIdentity(ctx, m.ResourceID)
					return err
				}
				_, err := d.PutFederated(ctx, m.PrincipalID, credential(fmt.Sprint("cred", i)))
				return err
			})
			if cs, _ := d.FederatedAll(ctx, m.PrincipalID); len(cs) != 0 {
				t.Fatalf("left behind: %v", cs)
			}
		}
	})
}

func FuzzFederatedCredential(f *testing.F) {
	f.Add("kube", issuer, "system:serviceaccount:a:b", audience)
	f.Add("a/b", "http://[::1]:80/", " x", "")
	f.Add("..", "https://a@b?c#d", "\x00", "\xff")
	d, _ := open(f, directory.Options{})
	owner := identity(f, d, "m").PrincipalID
	f.Fuzz(func(t *testing.T, name, issuer, subject, audience string) {
		c := directory.FederatedCredential{Name: name, Issuer: issuer, Subject: subject, Audiences: []string{audience}}
		_, err := d.PutFederated(t.Context(), owner, c)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		if !strings.HasPrefix(strings.ToLower(issuer), "https://") || strings.ContainsAny(issuer, "?# \t\n") {
			t.Errorf("accepted issuer %q", issuer)
		}
		got, ok, err := d.Federated(t.Context(), owner, name)
		if diff := cmp.Diff(c, got); diff != "" || !ok || err != nil {
			t.Errorf("%v %v %s", ok, err, diff)
		}
		_, mismatch, err := d.MatchFederated(t.Context(), owner, directory.Presented{Issuer: issuer, Subject: subject, Audiences: []string{audience}})
		if mismatch != nil || err != nil {
			t.Errorf("does not match itself: %+v, %v", mismatch, err)
		}
		if _, err := d.DeleteFederated(t.Context(), owner, name); err != nil {
			t.Error(err)
		}
	})
}
