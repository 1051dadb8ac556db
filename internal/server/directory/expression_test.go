package directory_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/directory"
)

func TestExpressionHolds(t *testing.T) {
	claims := map[string]string{
		"sub": "repo:contoso/shop:ref:refs/heads/main", "job_workflow_ref": "contoso/flows/deploy.yml@refs/tags/v1", "empty": "", "uni": "aüb",
		"quote": "it's", "long": "x" + strings.Repeat("a", 3000),
	}
	claim := func(name string) (string, bool) { v, ok := claims[name]; return v, ok }
	const always = "claims['sub'] matches 'repo:*' and "
	for in, want := range map[string]bool{
		"claims['sub'] eq 'repo:contoso/shop:ref:refs/heads/main'":                          true,
		"claims['sub'] eq 'repo:contoso/shop:ref:refs/heads/Main'":                          false,
		"claims['sub'] eq 'repo:contoso/*'":                                                 false, // a star is a star
		"claims['sub'] matches 'repo:contoso/*:ref:refs/heads/main'":                        true,
		"claims['sub'] matches 'repo:contoso/*'":                                            true,
		"claims['sub'] matches 'repo:contoso/'":                                             false, // the whole text
		"claims['sub'] matches '*repo:contoso/shop:ref:refs/heads/main*'":                   true,  // empty runs
		"claims['sub'] matches 'repo:contoso/sho?:*'":                                       true,
		"claims['sub'] matches 'repo:contoso/shop?:*'":                                      false, // exactly one
		"claims['sub'] matches 'repo:fabrikam/*'":                                           false,
		"claims['sub'] matches '*:ref:refs/heads/ma*n'":                                     true,
		"claims['sub'] matches '*a*a*a*'":                                                   false,
		always + "claims['job_workflow_ref'] matches 'contoso/flows/*@refs/tags/v?'":        true,
		always + "claims['job_workflow_ref'] eq 'other'":                                    false,
		always + "claims['absent'] matches '*'":                                             false,
		always + "claims['empty'] matches '*'":                                              true,
		always + "claims['uni'] matches 'a?b'":                                              true,
		always + "claims['quote'] eq 'it''s'":                                               true,
		always + "claims['long'] matches 'x*'":                                              false, // too long to look at
		"claims['job_workflow_ref'] matches 'contoso/*' and claims['sub'] matches 'repo:*'": true,
	} {
		e, err := directory.ParseExpression(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := e.Holds(claim); got != want {
			t.Errorf("%s: %v", in, got)
		}
		if e.String() != in {
			t.Errorf("%s became %s", in, e)
		}
	}
}

func TestExpressionRefusals(t *testing.T) {
	const ok = "claims['sub'] eq 'a'"
	for _, in := range []string{
		"", " ", ok + " ", " " + ok, ok + " and", ok + " and ", ok + " or " + ok, "not " + ok, "(" + ok + ")", ok + "  and " + ok, ok + " AND " + ok,
		"claims['sub']  eq 'a'", "claims['sub'] eq  'a'", "claims['sub'] eq a", "claims['sub'] eq 'a", "claims['sub'] eq ''", "claims['sub'] ne 'a'",
		"claims['sub'] EQ 'a'", "claims['sub'] contains 'a'", "claims[\"sub\"] eq 'a'", "claims['sub']eq 'a'", "claims.sub eq 'a'", "sub eq 'a'",
		"claims[''] eq 'a'", "claims['a b'] eq 'a' and " + ok, "claims['" + strings.Repeat("a", 65) + "'] eq 'a' and " + ok,
		"claims['iss'] eq 'https://x' and " + ok, "claims['aud'] eq 'x' and " + ok,
		"claims['sub'] matches '*'", "claims['sub'] matches '?*?'", "claims['job'] eq 'a'", // no hold on the subject
		"claims['sub'] eq 'a\nb'", "claims['sub'] eq 'a\x00'", "claims['sub'] eq 'a\xff'",
		strings.Repeat(ok+" and ", 8) + ok, "claims['sub'] eq '" + strings.Repeat("a", 600) + "'",
	} {
		e, err := directory.ParseExpression(in)
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%.80q: %v, %v", in, e, err)
		}
	}
}

func FuzzExpression(f *testing.F) {
	for _, s := range []string{"claims['sub'] matches 'a*b?'", "claims['sub'] eq 'it''s' and claims['x_y'] matches '*'", "claims['sub'] eq '"} {
		f.Add(s, "aXb!")
	}
	f.Fuzz(func(t *testing.T, s, sub string) {
		e, err := directory.ParseExpression(s)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		if e.String() != s {
			t.Fatalf("%q became %q", s, e)
		}
		e.Holds(func(string) (string, bool) { return sub, true })
	})
}

func flexible(name, value string) directory.FederatedCredential {
	return directory.FederatedCredential{Name: name, Issuer: issuer, Audiences: []string{audience}, Expression: value}
}

func TestMatchFederatedByExpression(t *testing.T) {
	d, ctx := open(t, directory.Options{})
	owner := identity(t, d, "m").PrincipalID
	put := func(c directory.FederatedCredential) {
		t.Helper()
		if _, err := d.PutFederated(ctx, owner, c); err != nil {
			t.Fatal(err)
		}
	}
	put(credential("exact"))
	put(flexible("shops", "claims['sub'] matches 'system:serviceaccount:shop-?:*'"))
	put(flexible("flow", "claims['sub'] matches 'repo:*' and claims['flow'] eq 'deploy'"))
	other := flexible("elsewhere", "claims['sub'] matches 'system:*'")
	other.Issuer = "https://other.example.test/"
	put(other)
	for _, c := range []struct {
		sub, aud, iss, claims, want, field string
	}{
		{sub: "system:serviceaccount:shop:exact", want: "exact"},
		{sub: "system:serviceaccount:shop-1:web", want: "shops"},
		{sub: "system:serviceaccount:shop-12:web", field: directory.FieldSubject},
		{sub: "system:serviceaccount:shop-1:web", aud: "other", field: directory.FieldAudience},
		{sub: "system:serviceaccount:shop-1:web", iss: "https://third.example.test/", field: directory.FieldIssuer},
		{sub: "anything", iss: other.Issuer, field: directory.FieldSubject},
		{sub: "system:x", iss: other.Issuer, want: "elsewhere"},
		{sub: "repo:x", claims: `{"flow":"deploy"}`, want: "flow"},
		{sub: "repo:x", claims: `{"flow":"test"}`, field: directory.FieldSubject},
		{sub: "repo:x", claims: `{"flow":["deploy"]}`, field: directory.FieldSubject}, // a list is no text
		{sub: "repo:x", claims: `{"sub":"repo:x"}`, field: directory.FieldSubject},
		{sub: "repo:x", claims: `not JSON`, field: directory.FieldSubject},
		{sub: "repo:x", field: directory.FieldSubject},
		{sub: "x", claims: `{"sub":"system:serviceaccount:shop-1:web"}`, field: directory.FieldSubject}, // the parsed one counts
		{sub: "", field: directory.FieldSubject},
	} {
		p := directory.Presented{Issuer: issuer, Subject: c.sub, Audiences: []string{audience}, Claims: []byte(c.claims)}
		if c.iss != "" {
			p.Issuer = c.iss
		}
		if c.aud != "" {
			p.Audiences = []string{c.aud}
		}
		got, mismatch, err := d.MatchFederated(ctx, owner, p)
		switch {
		case err != nil:
			t.Error(err)
		case c.want != "" && (mismatch != nil || got.Name != c.want):
			t.Errorf("%+v: %v %+v", c, got, mismatch)
		case c.want == "" && (mismatch == nil || mismatch.Field != c.field):
			t.Errorf("%+v: %v %+v", c, got, mismatch)
		}
	}
	both := flexible("both", "claims['sub'] eq 'x'")
	both.Subject = "x"
	_, err := d.PutFederated(ctx, owner, both)
	wantKind(t, err, fault.Invalid)
	_, err = d.PutFederated(ctx, owner, flexible("again", "claims['sub'] matches 'system:serviceaccount:shop-?:*'"))
	wantKind(t, err, fault.Invalid)
	for i := range 17 {
		put(flexible(fmt.Sprint("more-", i), fmt.Sprintf("claims['sub'] eq 's%d'", i)))
	}
	_, err = d.PutFederated(ctx, owner, flexible("too-many", "claims['sub'] eq 'x'"))
	wantKind(t, err, fault.Invalid)
	put(flexible("shops", "claims['sub'] eq 'x'")) // but one can be changed
	put(credential("plain"))
}

func TestCreateAndChangeFederated(t *testing.T) {
	d, ctx := open(t, directory.Options{})
	owner := identity(t, d, "m").PrincipalID
	if err := d.CreateFederated(ctx, owner, credential("kube")); err != nil {
		t.Fatal(err)
	}
	wantKind(t, d.CreateFederated(ctx, owner, credential("KUBE")), fault.Clash)
	wantKind(t, d.ChangeFederated(ctx, owner, "none", func(*directory.FederatedCredential) error { return nil }), fault.Missing)
	wantKind(t, d.ChangeFederated(ctx, owner, "kube", func(c *directory.FederatedCredential) error { c.Subject = ""; return nil }), fault.Invalid)
	err := d.ChangeFederated(ctx, owner, "KUBE", func(c *directory.FederatedCredential) error {
		c.Name, c.Subject, c.Expression = "other", "", "claims['sub'] eq 'y'"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if c, ok, _ := d.Federated(ctx, owner, "kube"); !ok || c.Name != "kube" || c.Subject != "" || c.Expression == "" {
		t.Errorf("%+v", c)
	}
}
