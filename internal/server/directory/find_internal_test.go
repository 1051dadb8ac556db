package directory

import (
	"fmt"
	"slices"
	"testing"

	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

// TestWalkSeesAll: a walk of several steps, through the records of two
// tenants, misses none and repeats none, wherever it begins and ends.
func TestWalkSeesAll(t *testing.T) {
	var d *Directory
	s := storetest.New(t, "", func(s *store.Store) { d = New(s, Options{}) })
	const n = 2*walkStep + 10
	var want []string
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		want = nil
		for i := range n {
			a := Application{ObjectID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i), TenantID: fmt.Sprint("t", i%3)}
			if a.TenantID == "t1" {
				want = append(want, a.ObjectID)
			}
			if err := d.applications.Put(tx, a.ObjectID, a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, most int }{{0, n}, {200, n}, {0, 1}, {1, 300}, {len(want) - 1, n}, {len(want), n}} {
		after := ""
		if c.from > 0 {
			after = want[c.from-1]
		}
		var got []string
		err := d.WalkApplications(t.Context(), "T1", after, func(a *Application) bool {
			got = append(got, a.ObjectID)
			return len(got) < c.most
		})
		expect := want[c.from:min(len(want), c.from+c.most)]
		if err != nil || !slices.Equal(got, expect) {
			t.Errorf("from %d, at most %d: %d, want %d: %v", c.from, c.most, len(got), len(expect), err)
		}
	}
}

// TestNothingOfASecretIsLeft: the hashes go with what they belong to.
func TestNothingOfASecretIsLeft(t *testing.T) {
	var d *Directory
	storetest.New(t, "", func(s *store.Store) { d = New(s, Options{}) })
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	hashes := func() int {
		t.Helper()
		es, err := d.hashes.Scan(ctx, "", "", 0)
		must(err)
		return len(es)
	}
	tenant, err := d.CreateTenant(ctx, Tenant{DisplayName: "t", Domains: []string{"t.example"}})
	must(err)
	app, err := d.CreateApplication(ctx, Application{TenantID: tenant.ID, DisplayName: "a"})
	must(err)
	add := func(id string) {
		t.Helper()
		_, _, err := d.AddSecret(ctx, id, NewSecret{})
		must(err)
	}
	principal := func() string {
		t.Helper()
		sp, err := d.CreateServicePrincipal(ctx, ServicePrincipal{TenantID: tenant.ID, AppID: app.AppID})
		must(err)
		add(sp.ObjectID)
		return sp.ObjectID
	}
	add(app.ObjectID)
	sp := principal()
	if n := hashes(); n != 2 {
		t.Fatalf("%d hashes", n)
	}
	_, err = d.DeleteServicePrincipal(ctx, sp)
	must(err)
	if n := hashes(); n != 1 {
		t.Errorf("%d hashes after the principal has gone", n)
	}
	principal()
	_, err = d.DeleteApplication(ctx, app.ObjectID)
	must(err)
	if n := hashes(); n != 0 {
		t.Errorf("%d hashes after the application has gone", n)
	}
}
