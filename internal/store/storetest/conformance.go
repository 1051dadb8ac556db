package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/store"
)

// Opener opens an empty store, calls declare to make its tables, loads it and
// runs it until the test ends. It is called once for the whole suite.
type Opener func(t testing.TB, declare func(*store.Store)) *store.Store

// Record is what the suite stores.
type Record struct {
	Name string
	N    int
	Tags []string
}

// tables has a table of each mode.
type tables struct {
	*store.Store
	byMode map[string]*store.Table[Record]
	plain  *store.Table[Record] // with the index "tag"
}

func openTables(t *testing.T, open Opener) *tables {
	ts := &tables{byMode: map[string]*store.Table[Record]{}}
	ts.Store = open(t, func(s *store.Store) {
		ts.byMode["sealed"] = store.NewTable[Record](s, "sealed", store.TableOptions[Record]{})
		ts.byMode["disk"] = store.NewTable[Record](s, "disk", store.TableOptions[Record]{Mode: store.Disk})
		ts.plain = store.NewTable[Record](s, "plain", store.TableOptions[Record]{
			Mode:    store.Plain,
			Indexes: map[string]func(*Record) []string{"tag": func(r *Record) []string { return r.Tags }},
		})
		ts.byMode["plain"] = ts.plain
	})
	return ts
}

// Conformance checks what the store promises, against stores that open makes.
func Conformance(t *testing.T, open Opener) {
	ts := openTables(t, open)
	for _, mode := range []string{"sealed", "plain", "disk"} {
		t.Run(mode, func(t *testing.T) {
			for _, c := range []struct {
				name string
				test func(*testing.T, *tables, *store.Table[Record])
			}{
				{"Records", testRecords},
				{"OwnWrites", testOwnWrites},
				{"Listing", testListing},
				{"DeletePrefix", testDeletePrefix},
				{"FailedUpdateWritesNothing", testFailedUpdate},
				{"CreateOnce", testCreateOnce},
				{"Increments", testIncrements},
				{"Snapshot", testSnapshot},
				{"WholeTransactions", testWholeTransactions},
				{"ListedRange", testListedRange},
				{"LargeTransaction", testLargeTransaction},
			} {
				t.Run(c.name, func(t *testing.T) {
					ts.empty(t)
					c.test(t, ts, ts.byMode[mode])
				})
			}
		})
	}
	for name, test := range map[string]func(*testing.T, *tables){
		"Index": testIndex, "IndexGuard": testIndexGuard, "Generation": testGeneration, "AcrossTables": testAcrossTables,
	} {
		t.Run(name, func(t *testing.T) {
			ts.empty(t)
			test(t, ts)
		})
	}
}

func testRecords(t *testing.T, s *tables, table *store.Table[Record]) {
	ctx := t.Context()
	check := func(when string, want Record, there bool) {
		t.Helper()
		got, ok, err := table.Load(ctx, "k")
		if err != nil || ok != there || !cmp.Equal(got, want) {
			t.Fatalf("%s: Load = %+v, %v, %v", when, got, ok, err)
		}
		err = s.View(ctx, func(tx *store.Tx) error {
			got, ok, err := table.Get(tx, "k")
			if ok != there || !cmp.Equal(got, want) {
				t.Errorf("%s: Get = %+v, %v, %v", when, got, ok, err)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	check("at first", Record{}, false)
	s.put(t, table, "k", Record{Name: "one", Tags: []string{"a"}})
	check("created", Record{Name: "one", Tags: []string{"a"}}, true)
	s.put(t, table, "k", Record{Name: "two"})
	check("changed", Record{Name: "two"}, true)
	s.update(t, func(tx *store.Tx) error { table.Delete(tx, "k"); return nil })
	check("deleted", Record{}, false)
	s.update(t, func(tx *store.Tx) error { table.Delete(tx, "k"); return nil })
	s.put(t, table, "k", Record{Name: "three"})
	check("created again", Record{Name: "three"}, true)
}

func testOwnWrites(t *testing.T, s *tables, table *store.Table[Record]) {
	s.put(t, table, "old", Record{N: 1})
	s.update(t, func(tx *store.Tx) error {
		get := func(key string, wantN int, want bool) {
			t.Helper()
			if got, ok, err := table.Get(tx, key); got.N != wantN || ok != want || err != nil {
				t.Errorf("Get(%s) = %+v, %v, %v", key, got, ok, err)
			}
		}
		get("new", 0, false)
		if err := errors.Join(table.Put(tx, "new", Record{N: 2}), table.Put(tx, "old", Record{N: 3})); err != nil {
			return err
		}
		get("new", 2, true)
		get("old", 3, true)
		table.Delete(tx, "new")
		get("new", 0, false)
		return table.Put(tx, "new", Record{N: 4})
	})
	if got := s.names(t, table, ""); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("records: %v", got)
	}
}

func testListing(t *testing.T, s *tables, table *store.Table[Record]) {
	ctx := t.Context()
	var want []string
	s.update(t, func(tx *store.Tx) error {
		want = nil
		for i := range 25 {
			for _, dir := range []string{"a", "b", "b-c"} {
				key := store.Key(dir, fmt.Sprintf("%02d", i))
				if dir == "b" {
					want = append(want, key)
				}
				if err := table.Put(tx, key, Record{N: i}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for _, limit := range []int{0, 1, 7, 25, 100} {
		var got []string
		for after := ""; ; {
			page, err := table.Scan(ctx, "b/", after, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page {
				if e.Err != nil || store.Key("b", fmt.Sprintf("%02d", e.Value.N)) != e.Key {
					t.Errorf("entry %+v", e)
				}
				got = append(got, e.Key)
			}
			if limit == 0 || len(page) < limit {
				break
			}
			after = page[len(page)-1].Key
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v", limit, got)
		}
	}
	err := s.View(ctx, func(tx *store.Tx) error {
		for after, n := range map[string]int{"": 25, "a/99": 25, "b/23": 1, "b/24": 0, "z": 0} {
			if es, err := table.List(tx, "b/", after, 0); len(es) != n || err != nil {
				t.Errorf("after %q: %d records, %v", after, len(es), err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func testDeletePrefix(t *testing.T, s *tables, table *store.Table[Record]) {
	s.update(t, func(tx *store.Tx) error {
		for _, key := range []string{"a/1", "a/2", "b/1", "b/2", "b/3/x", "bb/1", "c"} {
			if err := table.Put(tx, key, Record{Tags: []string{"t"}}); err != nil {
				return err
			}
		}
		return nil
	})
	s.update(t, func(tx *store.Tx) error {
		if err := table.Put(tx, "b/new", Record{}); err != nil {
			return err
		}
		table.DeletePrefix(tx, "b/3/")
		table.DeletePrefix(tx, "b/")
		table.Delete(tx, "b/1")
		for _, key := range []string{"b/1", "b/new", "b/3/x"} {
			if _, ok, err := table.Get(tx, key); ok || err != nil {
				t.Errorf("%s is still there, %v", key, err)
			}
		}
		if _, ok, _ := table.Get(tx, "bb/1"); !ok {
			t.Error("bb/1 has gone")
		}
		if err := table.Put(tx, "b/1", Record{}); err == nil {
			t.Error("put under a deleted prefix")
		}
		return table.Put(tx, "c", Record{N: 1})
	})
	if got := s.names(t, table, ""); !slices.Equal(got, []string{"a/1", "a/2", "bb/1", "c"}) {
		t.Errorf("left: %v", got)
	}
	s.update(t, func(tx *store.Tx) error { table.DeletePrefix(tx, ""); return nil })
	if got := s.names(t, table, ""); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	if table == s.plain {
		if rs, err := table.Find(t.Context(), "tag", "t"); len(rs) != 0 || err != nil {
			t.Errorf("index still has %v, %v", rs, err)
		}
	}
}

func testFailedUpdate(t *testing.T, s *tables, table *store.Table[Record]) {
	s.put(t, table, "k", Record{N: 1})
	refusal := errors.New("refused")
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		if err := table.Put(tx, "k", Record{N: 2}); err != nil {
			return err
		}
		table.DeletePrefix(tx, "")
		return refusal
	})
	if err != refusal {
		t.Errorf("err = %v, want the function's own", err)
	}
	if got, ok, err := table.Load(t.Context(), "k"); got.N != 1 || !ok || err != nil {
		t.Errorf("Load = %+v, %v, %v", got, ok, err)
	}
}

func testIndex(t *testing.T, s *tables) {
	find := func(tag string, want ...string) {
		t.Helper()
		rs, err := s.plain.Find(t.Context(), "tag", tag)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range rs {
			got = append(got, r.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("Find(%q) = %v, want %v", tag, got, want)
		}
		err = s.View(t.Context(), func(tx *store.Tx) error {
			es, err := s.plain.By(tx, "tag", tag)
			if len(es) != len(want) {
				t.Errorf("By(%q) = %v", tag, es)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(name string, tags ...string) { s.put(t, s.plain, name, Record{Name: name, Tags: tags}) }
	put("c", "red", "blue")
	put("a", "red")
	put("b", "redder", "", "red\x00a")
	find("red", "a", "c")
	find("blue", "c")
	find("redder", "b")
	find("", "b")
	find("re")
	find("red\x00a", "b")
	put("a", "blue")
	find("red", "c")
	find("blue", "a", "c")
	s.update(t, func(tx *store.Tx) error { s.plain.Delete(tx, "c"); return nil })
	find("red")
	find("blue", "a")
}

func testGeneration(t *testing.T, s *tables) {
	for _, mode := range []string{"sealed", "plain"} {
		table := s.byMode[mode]
		last, err := table.Generation(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		moved := func(what string, want bool) {
			t.Helper()
			now, err := table.Generation(t.Context())
			if err != nil || now < last || now > last != want {
				t.Errorf("%s, %s: generation %d after %d, %v", mode, what, now, last, err)
			}
			last = now
		}
		moved("nothing", false)
		s.put(t, table, "k", Record{})
		moved("create", true)
		s.put(t, table, "k", Record{})
		moved("same again", true)
		s.put(t, s.other(table), "k", Record{})
		moved("other table", false)
		s.update(t, func(tx *store.Tx) error { table.Delete(tx, "k"); return nil })
		moved("delete", true)
	}
}

func (s *tables) update(t *testing.T, fn func(tx *store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); err != nil {
		t.Errorf("update: %v", err)
	}
}

func (s *tables) put(t *testing.T, table *store.Table[Record], key string, r Record) {
	t.Helper()
	s.update(t, func(tx *store.Tx) error { return table.Put(tx, key, r) })
}

// empty removes what an earlier test has left.
func (s *tables) empty(t *testing.T) {
	t.Helper()
	s.update(t, func(tx *store.Tx) error {
		for _, table := range s.byMode {
			table.DeletePrefix(tx, "")
		}
		return nil
	})
}

// other returns another table, which has no index.
func (s *tables) other(table *store.Table[Record]) *store.Table[Record] {
	if table == s.byMode["sealed"] {
		return s.byMode["disk"]
	}
	return s.byMode["sealed"]
}

// names returns the keys under a prefix, without damage.
func (s *tables) names(t *testing.T, table *store.Table[Record], prefix string) []string {
	t.Helper()
	es, err := table.Scan(t.Context(), prefix, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range es {
		if e.Err != nil || !strings.HasPrefix(e.Key, prefix) {
			t.Errorf("entry %+v", e)
		}
		names = append(names, e.Key)
	}
	return names
}
