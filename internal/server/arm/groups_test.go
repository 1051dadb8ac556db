package arm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
)

// breakable is a type of resource whose removal fails when it is told to. Its
// things are named, and removed, in the order of their names.
type breakable struct {
	group  string // where its things are
	mu     sync.Mutex
	things map[string]bool
	fail   map[string]bool // by name: fail instead of removing
	late   map[string]bool // by name: fail after removing
	during func()          // runs in every removal
}

var errBroken = errors.New("the power is gone")

func (b *breakable) register(r *rig, namespace string) {
	name := namespace + "/things"
	r.h.Register(ResourceType{
		Name: name, Versions: []string{"2026-01-01"},
		List: func(_ context.Context, scope ID) ([]Resource, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			var out []Resource
			for n := range b.things {
				id := b.group + "/providers/" + name + "/" + n
				if strings.HasPrefix(strings.ToLower(id), scope.under()) {
					out = append(out, Resource{ID: id, Name: n, Type: name, Read: name + "/read"})
				}
			}
			return out, nil
		},
		Delete: func(_ context.Context, id ID, _ string) error {
			if b.during != nil {
				b.during()
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.fail[id.Name()] {
				return errBroken
			}
			delete(b.things, id.Name())
			if b.late[id.Name()] {
				return errBroken
			}
			return nil
		},
	})
}

// filled makes a group with two identities, two vaults and role assignments
// everywhere, and returns what the whole rig holds without it.
func filled(t *testing.T, r *rig, name string) (without map[string]string) {
	t.Helper()
	r.makeGroup("keep-" + name)
	kept := r.makeVault("keep-"+name, "keep-kv-"+name)
	r.grant("owner", rbac.Reader, kept)
	without = r.dump()
	g := r.makeGroup(name)
	r.grant("owner", rbac.Reader, g)
	for _, n := range []string{"one", "two"} {
		r.makeIdentity(name, "id-"+n)
		r.must(201, "owner", "PUT", identityPath(name, "id-"+n)+"/federatedIdentityCredentials/cred", credential("s-"+n))
		v := r.makeVault(name, "kv-"+n+"-"+name)
		r.grant("owner", rbac.Reader, identityPath(name, "id-"+n))
		r.grant("owner", rbac.KeyVaultReader, v)
		r.grant("owner", rbac.KeyVaultSecretsUser, v+"/secrets/s")
	}
	return without
}

// live is a dump without deleted vaults.
func live(d map[string]string) map[string]string {
	maps.DeleteFunc(d, func(k, _ string) bool { return strings.HasPrefix(k, "deleted ") })
	return d
}

func TestGroupRemovalTakesAllWithIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	without := filled(t, r, "g1")
	r.must(200, "owner", "DELETE", groupPath("G1"), nil)
	if diff := cmp.Diff(without, live(r.dump())); diff != "" {
		t.Error(diff)
	}
	got := r.must(200, "owner", "GET", "/subscriptions/"+homeSub+"/providers/Microsoft.KeyVault/deletedVaults", nil).list("name")
	if diff := cmp.Diff([]string{"kv-one-g1", "kv-two-g1"}, got); diff != "" {
		t.Error(diff)
	}
	r.refused(404, "ResourceGroupNotFound", "owner", "DELETE", groupPath("g1"), nil)
	// A group made anew begins with nothing, and the vaults can come back.
	r.makeGroup("g1")
	if got := r.must(200, "owner", "GET", groupPath("g1")+"/resources", nil).list("id"); len(got) != 0 {
		t.Error(got)
	}
	a := r.must(200, "owner", "PUT", vaultPath("g1", "kv-one-g1"), vaultRequest(map[string]any{"createMode": "recover"}))
	if a.at("name") != "kv-one-g1" {
		t.Errorf("%s", a.body)
	}
	as := r.must(200, "owner", "GET", strings.TrimSuffix(assignmentPath(vaultPath("g1", "kv-one-g1"), ""), "/")+"?$filter=atScope()", nil).list("id")
	if len(as) != 1 { // the subscription's owner
		t.Errorf("a recovered vault has its old assignments: %v", as)
	}
}

// TestGroupRemovalIsRepeatable breaks the removal before and after each of
// its steps and demands that repeating it, by the client or by a restarted
// server, comes to the same end.
func TestGroupRemovalIsRepeatable(t *testing.T) {
	t.Parallel()
	points := []struct {
		name       string
		ns         string // sorts the breaking thing among the resources
		fail, late []string
	}{
		{"before the first resource", "Aaa.Test", []string{"x"}, nil},
		{"after the first resource", "Aaa.Test", nil, []string{"x"}},
		{"between vaults and identities", "Microsoft.L", []string{"x"}, nil},
		{"after the last resource", "Zzz.Test", nil, []string{"x"}},
	}
	for _, resume := range []bool{false, true} {
		for _, p := range points {
			t.Run(fmt.Sprintf("%s, resume %v", p.name, resume), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				b := &breakable{group: groupPath("g1"), things: map[string]bool{"x": true}, fail: map[string]bool{}, late: map[string]bool{}}
				b.register(r, p.ns)
				without := filled(t, r, "g1")
				for _, n := range p.fail {
					b.fail[n] = true
				}
				for _, n := range p.late {
					b.late[n] = true
				}
				for range 2 { // it may break more than once
					r.refused(500, "InternalServerError", "owner", "DELETE", groupPath("g1"), nil)
					b.late = nil
					if p.late != nil {
						break
					}
				}
				if a := r.must(200, "owner", "GET", groupPath("g1"), nil); a.at("properties.provisioningState") != "Deleting" {
					t.Errorf("%s", a.body)
				}
				checkNoDanglingGrants(t, r)
				r.refused(409, "ResourceGroupBeingDeleted", "owner", "PUT", groupPath("g1"), map[string]any{"location": "westeurope"})
				r.refused(409, "ResourceGroupBeingDeleted", "owner", "PATCH", groupPath("g1"), map[string]any{"tags": map[string]string{}})
				r.refused(409, "ResourceGroupBeingDeleted", "owner", "PUT", identityPath("g1", "new"), map[string]any{"location": "westeurope"})
				r.refused(409, "ResourceGroupBeingDeleted", "owner", "PUT", assignmentPath(groupPath("g1"), uuid.NewString()), nil)
				b.fail = nil
				if resume {
					if err := r.h.Resume(t.Context()); err != nil {
						t.Fatal(err)
					}
				} else {
					r.must(200, "owner", "DELETE", groupPath("g1"), nil)
				}
				if diff := cmp.Diff(without, live(r.dump())); diff != "" {
					t.Error(diff)
				}
				if len(b.things) != 0 {
					t.Error("a thing is left")
				}
				vs, err := r.h.o.Vaults.ListDeleted(t.Context(), homeSub)
				ok(t, err)
				for _, v := range vs {
					if v.Deleted.DeletedBy != r.people["owner"].ObjectID {
						t.Errorf("%s was deleted by %q", v.Name, v.Deleted.DeletedBy)
					}
				}
			})
		}
	}
}

// checkNoDanglingGrants demands that what each assignment is on exists.
func checkNoDanglingGrants(t *testing.T, r *rig) {
	t.Helper()
	as, err := r.h.o.RBAC.Assignments(t.Context(), homeTenant, "/", rbac.Filter{})
	ok(t, err)
	q := &Request{TenantID: homeTenant, h: r.h}
	for _, a := range as {
		id, err := ParseID(a.Scope)
		ok(t, err)
		if _, err := q.mustExist(t.Context(), id); err != nil {
			t.Errorf("an assignment speaks for nothing: %s", a.ID())
		}
	}
}

// TestRemovalAndItsAssignments: a removal that fails leaves less allowed, not
// more; an assignment that is made meanwhile goes too.
func TestRemovalAndItsAssignments(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g1")
	r.makeIdentity("g1", "idn")
	path := identityPath("g1", "idn")
	count := func() int {
		as, err := r.h.o.RBAC.Assignments(t.Context(), homeTenant, path, rbac.Filter{})
		ok(t, err)
		return len(as) - 1 // but for the subscription's owner
	}
	r.grant("owner", rbac.Reader, path)
	r.grant("owner", rbac.Reader, path+"/federatedIdentityCredentials/x")
	err := r.h.removeWithAssignments(t.Context(), mustParse(path), func(context.Context) error { return errBroken })
	if !errors.Is(err, errBroken) || count() != 0 {
		t.Errorf("%v, and %d assignments are left", err, count())
	}
	err = r.h.removeWithAssignments(t.Context(), mustParse(path), func(context.Context) error {
		r.grant("owner", rbac.Reader, path)
		return nil
	})
	if err != nil || count() != 0 {
		t.Errorf("%v, and %d assignments are left", err, count())
	}
}

// TestGroupRemovalOutlivesItsRequest: the client goes away half-way.
func TestGroupRemovalOutlivesItsRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	b := &breakable{group: groupPath("g1"), things: map[string]bool{"x": true}, during: cancel}
	b.register(r, "Aaa.Test")
	without := filled(t, r, "g1")
	existed, err := r.h.removeGroup(ctx, homeTenant, mustParse(groupPath("g1")), "me")
	if !existed || err != nil {
		t.Errorf("%v %v", existed, err)
	}
	if diff := cmp.Diff(without, live(r.dump())); diff != "" {
		t.Error(diff)
	}
}

// TestRestartResumes: the mark survives, and a new process finds it.
func TestRestartResumes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var without map[string]string
	t.Run("crash", func(t *testing.T) {
		r := newRigIn(t, dir)
		b := &breakable{group: groupPath("g1"), things: map[string]bool{"x": true}, fail: map[string]bool{"x": true}}
		b.register(r, "Microsoft.L")
		without = filled(t, r, "g1")
		r.refused(500, "InternalServerError", "owner", "DELETE", groupPath("g1"), nil)
	})
	t.Run("restart", func(t *testing.T) {
		r := newRigIn(t, dir)
		if err := r.h.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(without, live(r.dump())); diff != "" {
			t.Error(diff)
		}
	})
}

// TestGroupMadeAnewSurvivesAnOldRemoval: of two removals at the same time, the
// slower one must not touch the group that is made after the quicker one.
func TestGroupMadeAnewSurvivesAnOldRemoval(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := &breakable{group: groupPath("g1"), things: map[string]bool{"x": true}}
	b.register(r, "Zzz.Test")
	filled(t, r, "g1")
	b.during = func() {
		b.during = nil
		// In the middle of this removal another one runs to its end, and the
		// group is made again.
		r.must(200, "owner", "DELETE", groupPath("g1"), nil)
		r.clock.Advance(1)
		r.makeGroup("g1")
		r.makeIdentity("g1", "id-new")
	}
	r.must(200, "owner", "DELETE", groupPath("g1"), nil)
	if diff := cmp.Diff([]string{"id-new"}, r.must(200, "owner", "GET", groupPath("g1")+"/resources", nil).list("name")); diff != "" {
		t.Error(diff)
	}
}

// bodyThat runs a function when it is first read: after the pipeline has let
// the request through, before the handler acts.
type bodyThat struct {
	io.Reader
	do func()
}

func (b *bodyThat) Read(p []byte) (int, error) {
	if b.do != nil {
		do := b.do
		b.do = nil
		do()
	}
	return b.Reader.Read(p)
}
func (b *bodyThat) Close() error { return nil }

// TestCreationInADyingGroupIsUndone: the group is marked after the creation
// was let through, and before it is done.
func TestCreationInADyingGroupIsUndone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g1")
	r.makeVault("g1", "kv-back")
	r.must(200, "owner", "DELETE", vaultPath("g1", "kv-back"), nil)
	for name, c := range map[string]struct{ path, body string }{
		"identity":     {identityPath("g1", "late") + "?api-version=2024-11-30", `{"location":"westeurope"}`},
		"vault":        {vaultPath("g1", "kv-late") + "?api-version=2024-11-01", `{"location":"westeurope","properties":{"tenantId":"` + homeTenant + `","sku":{"family":"A","name":"standard"}}}`},
		"recovery":     {vaultPath("g1", "kv-back") + "?api-version=2024-11-01", `{"properties":{"createMode":"recover"}}`},
		"group update": {groupPath("g1") + "?api-version=2021-04-01", `{"location":"westeurope"}`},
	} {
		t.Run(name, func(t *testing.T) {
			if err := r.h.s.Update(t.Context(), unmark(r)); err != nil {
				t.Fatal(err)
			}
			before := live(r.dump())
			req := httptest.NewRequest("PUT", c.path, nil)
			req.Header.Set("Authorization", "Bearer owner")
			req.Body = &bodyThat{strings.NewReader(c.body), func() {
				if _, _, err := r.h.markGroup(t.Context(), mustParse(groupPath("g1")), "me"); err != nil {
					t.Error(err)
				}
			}}
			w := httptest.NewRecorder()
			r.edge.ServeHTTP(w, req)
			if w.Code != 409 || !strings.Contains(w.Body.String(), "ResourceGroupBeingDeleted") {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			after := live(r.dump())
			key := "group " + groupKey(homeSub, "g1")
			delete(before, key)
			delete(after, key)
			if diff := cmp.Diff(before, after); diff != "" {
				t.Error(diff)
			}
		})
	}
	vs, err := r.h.o.Vaults.ListDeleted(t.Context(), homeSub)
	ok(t, err)
	if len(vs) != 1 || vs[0].Name != "kv-back" {
		t.Errorf("the undone vault holds its name: %+v", vs)
	}
}

// unmark makes the group g1 whole again.
func unmark(r *rig) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		key := groupKey(homeSub, "g1")
		g, _, err := r.h.groups.Get(tx, key)
		if err != nil {
			return err
		}
		g.Deleting = false
		return r.h.groups.Put(tx, key, g)
	}
}

// TestAssignmentOnWhatGoesIsUndone: the scope is there when the assignment is
// judged and gone when it is written.
func TestAssignmentOnWhatGoesIsUndone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g1")
	looks := 0
	r.h.Register(ResourceType{
		Name: "Zzz.Test/fleeting", Versions: []string{"2026-01-01"},
		Find: func(_ context.Context, _ string, id ID) (string, bool, error) {
			looks++
			return id.String(), looks < 3, nil
		},
	})
	before := r.dump()
	r.refused(404, "ResourceNotFound", "owner", "PUT", assignmentPath(groupPath("g1")+"/providers/Zzz.Test/fleeting/x", uuid.NewString()), map[string]any{
		"properties": map[string]any{"roleDefinitionId": rbac.Reader, "principalId": r.people["owner"].ObjectID},
	})
	if diff := cmp.Diff(before, r.dump()); diff != "" || looks != 3 {
		t.Errorf("%d looks: %s", looks, diff)
	}
}

// TestPatchCreatesNothing: an identity that is deleted while its tags are
// changed stays deleted.
func TestPatchCreatesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g1")
	before := r.dump()
	r.makeIdentity("g1", "idn")
	req := httptest.NewRequest("PATCH", identityPath("g1", "idn")+"?api-version=2024-11-30", nil)
	req.Header.Set("Authorization", "Bearer owner")
	req.Body = &bodyThat{strings.NewReader(`{"tags":{"a":"b"}}`), func() { r.must(200, "owner", "DELETE", identityPath("g1", "idn"), nil) }}
	w := httptest.NewRecorder()
	r.edge.ServeHTTP(w, req)
	if w.Code != 404 || !strings.Contains(w.Body.String(), "ResourceNotFound") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Error(diff)
	}
}

// TestConcurrentLife makes and removes everything at once, and demands that
// what is left belongs to something.
func TestConcurrentLife(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	principal := r.people["owner"].ObjectID
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for n := range 12 {
				name := fmt.Sprintf("n%d-%d", worker, n)
				var answers []*answer
				switch worker {
				case 0:
					answers = append(answers, r.do("owner", "PUT", groupPath("g"), map[string]any{"location": "westeurope"}), r.do("owner", "DELETE", groupPath("g"), nil))
				case 1:
					answers = append(answers, r.do("owner", "PUT", identityPath("g", name), map[string]any{"location": "westeurope"}))
				case 2:
					answers = append(answers, r.do("owner", "PUT", vaultPath("g", name), vaultRequest(nil)))
				case 3:
					for _, scope := range []string{groupPath("g"), identityPath("g", fmt.Sprintf("n1-%d", n)), vaultPath("g", fmt.Sprintf("n2-%d", n))} {
						answers = append(answers, r.do("owner", "PUT", assignmentPath(scope, uuid.NewString()), map[string]any{
							"properties": map[string]any{"roleDefinitionId": rbac.Reader, "principalId": principal},
						}))
					}
				}
				for _, a := range answers {
					if !slices.Contains([]int{200, 201, 404, 409}, a.StatusCode) {
						t.Errorf("%s %s: %d %s", a.Request.Method, a.Request.URL.Path, a.StatusCode, a.body)
					}
				}
			}
		})
	}
	wg.Wait()
	checkNoDanglingGrants(t, r)
	if _, there, _ := r.h.group(t.Context(), mustParse(groupPath("g"))); !there {
		left := live(r.dump())
		for k := range left {
			if strings.Contains(k, "/resourceGroups/g/") {
				t.Errorf("%s is left of a group that has gone", k)
			}
		}
	}
}

// TestConcurrentPolicyChanges: each of many additions is there at the end.
func TestConcurrentPolicyChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	v := vaultPath("g", "kv-1")
	r.must(201, "owner", "PUT", v, vaultRequest(map[string]any{"enableRbacAuthorization": false}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			r.must(200, "owner", "PUT", v+"/accessPolicies/add", map[string]any{"properties": map[string]any{"accessPolicies": []any{
				map[string]any{"tenantId": homeTenant, "objectId": uuid.NewString(), "permissions": map[string]any{"secrets": []string{"get"}}},
			}}})
		})
	}
	wg.Wait()
	a := r.must(http.StatusOK, "owner", "GET", v, nil)
	if got := len(a.at("properties.accessPolicies").([]any)); got != 8 {
		t.Errorf("%d policies are left of 8", got)
	}
}
