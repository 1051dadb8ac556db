package directory_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podkey/podkey/internal/server/directory"
)

func cred(name, issuer, subject, audience string) directory.FederatedCredential {
	return directory.FederatedCredential{Name: name, Issuer: issuer, Subject: subject, Audiences: []string{audience}}
}

func TestNearest(t *testing.T) {
	const sub = "system:serviceaccount:shop:web"
	kube := cred("kube", issuer, sub, audience)
	for _, c := range []struct {
		name  string
		creds []directory.FederatedCredential
		p     directory.Presented
		want  directory.Mismatch
	}{
		{"nothing configured", nil, directory.Presented{Issuer: issuer, Subject: sub, Audiences: []string{audience}}, directory.Mismatch{}},
		{"a match", []directory.FederatedCredential{kube}, directory.Presented{Issuer: issuer, Subject: sub, Audiences: []string{audience}}, directory.Mismatch{}},
		{"one of several audiences", []directory.FederatedCredential{kube}, directory.Presented{Issuer: issuer, Subject: sub, Audiences: []string{"x", audience}}, directory.Mismatch{}},
		{
			"closing slash missing", []directory.FederatedCredential{cred("other", "https://a.test/", sub, audience), kube},
			directory.Presented{Issuer: strings.TrimSuffix(issuer, "/"), Subject: sub, Audiences: []string{audience}},
			directory.Mismatch{Field: "issuer", Nearest: kube, Expected: issuer, Found: strings.TrimSuffix(issuer, "/"), Hint: directory.HintSlash, Differs: []string{"issuer"}},
		},
		{
			"issuer of another cluster", []directory.FederatedCredential{cred("far", "https://b.test/", "x", audience), kube},
			directory.Presented{Issuer: "https://oidc.example.test/cluster2/", Subject: sub, Audiences: []string{"wrong"}},
			directory.Mismatch{Field: "issuer", Nearest: kube, Expected: issuer, Found: "https://oidc.example.test/cluster2/", Differs: []string{"issuer", "audience"}},
		},
		{
			"subject in another case", []directory.FederatedCredential{cred("api", issuer, "system:serviceaccount:shop:api", audience), kube},
			directory.Presented{Issuer: issuer, Subject: "system:serviceaccount:Shop:web", Audiences: []string{audience}},
			directory.Mismatch{Field: "subject", Nearest: kube, Expected: sub, Found: "system:serviceaccount:Shop:web", Hint: directory.HintCase, Differs: []string{"subject"}},
		},
		{
			// An issuer that is alike is a worse guess than one with which
			// everything else is right.
			"issuer that moved", []directory.FederatedCredential{cred("alike", "https://new.test/a", "other", audience), kube},
			directory.Presented{Issuer: "https://new.test/b", Subject: sub, Audiences: []string{audience}},
			directory.Mismatch{Field: "issuer", Nearest: kube, Expected: issuer, Found: "https://new.test/b", Differs: []string{"issuer"}},
		},
		{
			// A mistake that people make is a better guess than fewer letters.
			"subject in capitals", []directory.FederatedCredential{cred("alike", issuer, strings.ToUpper(sub)+"2", audience), kube},
			directory.Presented{Issuer: issuer, Subject: strings.ToUpper(sub), Audiences: []string{audience}},
			directory.Mismatch{Field: "subject", Nearest: kube, Expected: sub, Found: strings.ToUpper(sub), Hint: directory.HintCase, Differs: []string{"subject"}},
		},
		{
			"subject with a blank", []directory.FederatedCredential{kube},
			directory.Presented{Issuer: issuer, Subject: sub + " ", Audiences: []string{audience}},
			directory.Mismatch{Field: "subject", Nearest: kube, Expected: sub, Found: sub + " ", Hint: directory.HintBlank, Differs: []string{"subject"}},
		},
		{
			// The credential with the right subject has another issuer: the
			// issuer was found, so the subject is what is wrong.
			"right subject at another issuer", []directory.FederatedCredential{cred("elsewhere", "https://a.test/", "the:one", audience), kube},
			directory.Presented{Issuer: issuer, Subject: "the:one", Audiences: []string{audience}},
			directory.Mismatch{Field: "subject", Nearest: kube, Expected: sub, Found: "the:one", Differs: []string{"subject"}},
		},
		{
			"the likest subject", []directory.FederatedCredential{cred("a-far", issuer, "system:serviceaccount:db:backup", audience), kube},
			directory.Presented{Issuer: issuer, Subject: "system:serviceaccount:shop:wob", Audiences: []string{audience}},
			directory.Mismatch{Field: "subject", Nearest: kube, Expected: sub, Found: "system:serviceaccount:shop:wob", Differs: []string{"subject"}},
		},
		{
			"audience", []directory.FederatedCredential{cred("x", "https://a.test/", sub, "aud"), kube},
			directory.Presented{Issuer: issuer, Subject: sub, Audiences: []string{"aud", "other"}},
			directory.Mismatch{Field: "audience", Nearest: kube, Expected: audience, Found: "aud, other", Differs: []string{"audience"}},
		},
		{
			"audience in another case", []directory.FederatedCredential{kube},
			directory.Presented{Issuer: issuer, Subject: sub, Audiences: []string{strings.ToLower(audience)}},
			directory.Mismatch{Field: "audience", Nearest: kube, Expected: audience, Found: strings.ToLower(audience), Hint: directory.HintCase, Differs: []string{"audience"}},
		},
		{
			"no audience at all", []directory.FederatedCredential{kube},
			directory.Presented{Issuer: issuer, Subject: sub},
			directory.Mismatch{Field: "audience", Nearest: kube, Expected: audience, Differs: []string{"audience"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, directory.Nearest(c.creds, c.p)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// world draws credentials and assertions from values that are easily taken
// for each other.
type world struct{ issuers, subjects, audiences []string }

var confusing = world{
	issuers:   []string{"https://a.test", "https://a.test/", "https://A.test/", "https://a.test/x", "https://b.test"},
	subjects:  []string{"system:serviceaccount:a:b", "system:serviceaccount:a:B", "system:serviceaccount:a:bb", "b", "repo:a/b"},
	audiences: []string{audience, "api://azureadtokenexchange", "b"},
}

func (w world) presented(t *rapid.T) directory.Presented {
	hostile := []string{"", " ", "\n", "\x00", "https://a.test\nsystem:serviceaccount:a:b"}
	return directory.Presented{
		Issuer:    rapid.SampledFrom(append(slices.Clone(w.issuers), hostile...)).Draw(t, "issuer"),
		Subject:   rapid.SampledFrom(append(slices.Clone(w.subjects), hostile...)).Draw(t, "subject"),
		Audiences: rapid.SliceOfN(rapid.SampledFrom(append(slices.Clone(w.audiences), hostile...)), 0, 3).Draw(t, "audiences"),
	}
}

// naive is the rule in the words of the documentation, once more: equal
// issuer, equal subject, and the audience among those presented.
func naive(cs []directory.FederatedCredential, p directory.Presented) (name, field string) {
	issuerSeen, subjectSeen := false, false
	for _, c := range cs {
		if c.Issuer != p.Issuer {
			continue
		}
		issuerSeen = true
		if c.Subject != p.Subject {
			continue
		}
		subjectSeen = true
		for _, a := range p.Audiences {
			if a == c.Audiences[0] {
				return c.Name, ""
			}
		}
	}
	switch {
	case len(cs) == 0:
		return "", ""
	case subjectSeen:
		return "", "audience"
	case issuerSeen:
		return "", "subject"
	}
	return "", "issuer"
}

// Stored credentials match exactly what the naive rule says, after any
// sequence of writes and deletions; and a refusal names the field it says.
func TestMatchingAgainstNaiveEvaluator(t *testing.T) {
	d, ctx := open(t, directory.Options{})
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		m, _, err := d.PutIdentity(ctx, directory.ManagedIdentity{ResourceID: identityID("r" + string(rune('a'+round%26)) + rapid.StringMatching(`[a-z]{12}`).Draw(t, "id")), Name: "m", TenantID: tenantID})
		if err != nil {
			t.Fatal(err)
		}
		w, model := confusing, map[string]directory.FederatedCredential{}
		for range rapid.IntRange(0, 8).Draw(t, "writes") {
			c := cred(rapid.SampledFrom([]string{"one", "two", "three", "four"}).Draw(t, "name"),
				rapid.SampledFrom(w.issuers).Draw(t, "i"), rapid.SampledFrom(w.subjects).Draw(t, "s"), rapid.SampledFrom(w.audiences).Draw(t, "a"))
			if rapid.IntRange(0, 4).Draw(t, "delete") == 0 {
				if _, err := d.DeleteFederated(ctx, m.PrincipalID, c.Name); err != nil {
					t.Fatal(err)
				}
				delete(model, c.Name)
				continue
			}
			taken := false
			for _, have := range model {
				taken = taken || have.Name != c.Name && have.Issuer == c.Issuer && have.Subject == c.Subject
			}
			_, err := d.PutFederated(ctx, m.PrincipalID, c)
			if (err != nil) != taken {
				t.Fatalf("PutFederated(%+v): %v, taken %v", c, err, taken)
			}
			if err == nil {
				model[c.Name] = c
			}
		}
		var cs []directory.FederatedCredential
		for _, c := range model {
			cs = append(cs, c)
		}
		for range 4 {
			p := w.presented(t)
			name, field := naive(cs, p)
			got, mismatch, err := d.MatchFederated(ctx, m.PrincipalID, p)
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != name || (mismatch == nil) != (name != "") || mismatch != nil && mismatch.Field != field {
				t.Fatalf("%+v against %+v: %q, %+v; want %q, field %q", p, cs, got.Name, mismatch, name, field)
			}
			if mismatch != nil && field != "" && !slices.ContainsFunc(cs, func(c directory.FederatedCredential) bool { return cmp.Equal(c, mismatch.Nearest) }) {
				t.Fatalf("nearest %+v is not one of %+v", mismatch.Nearest, cs)
			}
		}
	})
}

// However the credentials are ordered, the explanation is the same.
func TestNearestDoesNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var cs []directory.FederatedCredential
		for _, name := range []string{"a", "b", "c", "d"}[:rapid.IntRange(0, 4).Draw(t, "n")] {
			cs = append(cs, cred(name, rapid.SampledFrom(confusing.issuers).Draw(t, "i"), rapid.SampledFrom(confusing.subjects).Draw(t, "s"), rapid.SampledFrom(confusing.audiences).Draw(t, "a")))
		}
		p := confusing.presented(t)
		want := directory.Nearest(cs, p)
		if got := directory.Nearest(rapid.Permutation(cs).Draw(t, "order"), p); !cmp.Equal(want, got) {
			t.Fatal(cmp.Diff(want, got))
		}
		if c, ok := directory.Match(cs, p); ok && (want.Field != "" || c.Issuer != p.Issuer) || !ok && len(cs) > 0 && want.Field == "" {
			t.Fatalf("Match %v %+v, Nearest %+v", ok, c, want)
		}
	})
}
