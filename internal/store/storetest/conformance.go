package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
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

func testCreateOnce(t *testing.T, s *tables, table *store.Table[Record]) {
	const workers = 8
	exists := errors.New("exists")
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for i := range workers {
		wg.Go(func() {
			errs[i] = s.Update(t.Context(), func(tx *store.Tx) error {
				if _, ok, err := table.Get(tx, "k"); err != nil || ok {
					return errors.Join(err, exists)
				}
				return table.Put(tx, "k", Record{N: i})
			})
		})
	}
	wg.Wait()
	created := slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return errors.Is(err, exists) })
	if len(created) != 1 || created[0] != nil {
		t.Errorf("outcomes: %v", errs)
	}
}

func testIncrements(t *testing.T, s *tables, table *store.Table[Record]) {
	const workers, each = 8, 10
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				err := s.Update(t.Context(), func(tx *store.Tx) error {
					r, _, err := table.Get(tx, "n")
					if err != nil {
						return err
					}
					r.N++
					return table.Put(tx, "n", r)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if r, _, err := table.Load(t.Context(), "n"); r.N != workers*each || err != nil {
		t.Errorf("n = %d, want %d; %v", r.N, workers*each, err)
	}
}

// testSnapshot checks that a transaction goes on seeing what it began with.
func testSnapshot(t *testing.T, s *tables, table *store.Table[Record]) {
	s.put(t, table, "a", Record{N: 1})
	s.put(t, table, "b", Record{N: 1})
	err := s.View(t.Context(), func(tx *store.Tx) error {
		s.put(t, table, "a", Record{N: 2})
		s.put(t, table, "c", Record{N: 2})
		s.update(t, func(tx *store.Tx) error { table.Delete(tx, "b"); return nil })
		a, _, errA := table.Get(tx, "a")
		b, ok, errB := table.Get(tx, "b")
		es, errL := table.List(tx, "", "", 0)
		if a.N != 1 || b.N != 1 || !ok || len(es) != 2 {
			t.Errorf("a = %+v, b = %+v %v, %d records", a, b, ok, len(es))
		}
		return errors.Join(errA, errB, errL)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.names(t, table, ""); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("afterwards: %v", got)
	}
}

// testWholeTransactions checks that readers see all of a transaction or none
// of it: money moves between accounts, and the sum stays.
func testWholeTransactions(t *testing.T, s *tables, table *store.Table[Record]) {
	const accounts, total, moves = 4, 400, 40
	s.update(t, func(tx *store.Tx) error {
		for i := range accounts {
			if err := table.Put(tx, fmt.Sprint(i), Record{N: total / accounts}); err != nil {
				return err
			}
		}
		return nil
	})
	ctx, stop := context.WithCancel(t.Context())
	var writers, readers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := range moves {
				from, to := fmt.Sprint((i+w)%accounts), fmt.Sprint((i+2*w+1)%accounts)
				if from == to {
					continue
				}
				s.update(t, func(tx *store.Tx) error {
					a, _, errA := table.Get(tx, from)
					b, _, errB := table.Get(tx, to)
					if err := errors.Join(errA, errB); err != nil {
						return err
					}
					a.N, b.N = a.N-1, b.N+1
					return errors.Join(table.Put(tx, from, a), table.Put(tx, to, b))
				})
			}
		})
	}
	sum := func(es []store.Entry[Record], err error) {
		n := 0
		for _, e := range es {
			n += e.Value.N
			err = errors.Join(err, e.Err)
		}
		if (err != nil || n != total) && ctx.Err() == nil {
			t.Errorf("sum = %d, %v", n, err)
		}
	}
	readers.Go(func() {
		for ctx.Err() == nil {
			sum(table.Scan(ctx, "", "", 0))
		}
	})
	readers.Go(func() {
		for ctx.Err() == nil {
			s.View(ctx, func(tx *store.Tx) error {
				var es []store.Entry[Record]
				for i := range accounts {
					r, _, err := table.Get(tx, fmt.Sprint(i))
					es = append(es, store.Entry[Record]{Value: r, Err: err})
				}
				sum(es, nil)
				return nil
			})
		}
	})
	writers.Wait()
	stop()
	readers.Wait()
}

// testListedRange checks what makes a transaction that has listed run again.
func testListedRange(t *testing.T, s *tables, table *store.Table[Record]) {
	for _, c := range []struct {
		name  string
		limit int
		other func(tx *store.Tx) error
		again bool
	}{
		{"create", 0, func(tx *store.Tx) error { return table.Put(tx, "l/new", Record{}) }, true},
		{"change", 0, func(tx *store.Tx) error { return table.Put(tx, "l/1", Record{N: 9}) }, true},
		{"delete", 0, func(tx *store.Tx) error { table.Delete(tx, "l/2"); return nil }, true},
		{"delete by prefix", 0, func(tx *store.Tx) error { table.DeletePrefix(tx, "l/3"); return nil }, true},
		{"create within the page", 2, func(tx *store.Tx) error { return table.Put(tx, "l/11", Record{}) }, true},
		{"create beyond the page", 2, func(tx *store.Tx) error { return table.Put(tx, "l/9", Record{}) }, table == s.plain},
		{"create elsewhere", 0, func(tx *store.Tx) error { return table.Put(tx, "m/1", Record{}) }, table == s.plain},
		{"other table", 0, func(tx *store.Tx) error { return s.other(table).Put(tx, "l/1", Record{}) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.update(t, func(tx *store.Tx) error {
				return errors.Join(table.Put(tx, "l/1", Record{}), table.Put(tx, "l/2", Record{}), table.Put(tx, "l/3", Record{}))
			})
			runs := 0
			s.update(t, func(tx *store.Tx) error {
				if _, err := table.List(tx, "l/", "", c.limit); err != nil {
					return err
				}
				if runs++; runs == 1 {
					s.update(t, c.other)
				}
				return s.other(table).Put(tx, "listed", Record{N: runs})
			})
			if again := runs > 1; again != c.again {
				t.Errorf("ran %d times", runs)
			}
		})
	}
}

// testLargeTransaction writes more records at once than an etcd with default
// settings takes operations.
func testLargeTransaction(t *testing.T, s *tables, table *store.Table[Record]) {
	const n = 1500
	s.update(t, func(tx *store.Tx) error {
		for i := range n {
			if err := table.Put(tx, fmt.Sprintf("%04d", i), Record{N: i}); err != nil {
				return err
			}
		}
		return nil
	})
	es, err := table.Scan(t.Context(), "", "", 0)
	if len(es) != n || err != nil {
		t.Fatalf("%d records, %v", len(es), err)
	}
	for i, e := range es {
		if e.Err != nil || e.Value.N != i {
			t.Fatalf("entry %d: %+v", i, e)
		}
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

// testIndexGuard checks that a rule over an index holds when many try to
// break it at once: at most one record has the tag.
func testIndexGuard(t *testing.T, s *tables) {
	taken := errors.New("taken")
	for round := range 3 {
		tag := fmt.Sprint("tag", round)
		s.put(t, s.plain, "holder", Record{Tags: []string{tag}})
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				err := s.Update(t.Context(), func(tx *store.Tx) error {
					es, err := s.plain.By(tx, "tag", tag)
					if err != nil {
						return err
					}
					for _, e := range es {
						if e.Key != "holder" {
							return taken
						}
					}
					s.plain.Delete(tx, "holder")
					return s.plain.Put(tx, fmt.Sprint(round, i), Record{Tags: []string{tag}})
				})
				if err != nil && err != taken {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if rs, err := s.plain.Find(t.Context(), "tag", tag); len(rs) != 1 || err != nil {
			t.Errorf("%d records have the tag, %v", len(rs), err)
		}
	}
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

// testAcrossTables checks that who has seen a write in one table sees it in
// the others, whichever way he reads.
func testAcrossTables(t *testing.T, s *tables) {
	const writes = 60
	ctx := t.Context()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range writes {
			s.update(t, func(tx *store.Tx) error {
				var errs []error
				for _, table := range s.byMode {
					errs = append(errs, table.Put(tx, "k", Record{N: i}))
				}
				return errors.Join(errs...)
			})
		}
	}()
	names := []string{"sealed", "disk", "plain"}
	for i, seen := 0, 0; ; i++ {
		select {
		case <-done:
			return
		default:
		}
		r, _, err := s.byMode[names[i%3]].Load(ctx, "k")
		if err != nil {
			t.Error(err)
		}
		if r.N < seen {
			t.Errorf("%s shows %d after %s showed %d", names[i%3], r.N, names[(i+2)%3], seen)
		}
		seen = r.N
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
