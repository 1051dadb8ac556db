package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/podkey/podkey/internal/store"
)

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
		{"change the end of the page", 2, func(tx *store.Tx) error { return table.Put(tx, "l/2", Record{N: 9}) }, true},
		{"create beyond the page", 2, func(tx *store.Tx) error { return table.Put(tx, "l/9", Record{}) }, table == s.plain},
		{"create elsewhere", 0, func(tx *store.Tx) error { return table.Put(tx, "m/1", Record{}) }, table == s.plain},
		{"other table", 0, func(tx *store.Tx) error { return s.other(table).Put(tx, "l/1", Record{}) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.empty(t)
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
// settings takes operations, and reads nearly as many as it takes comparisons.
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
	s.update(t, func(tx *store.Tx) error {
		for i := range 300 {
			if i < 120 {
				if _, ok, err := table.Get(tx, fmt.Sprintf("%04d", i)); !ok || err != nil {
					return fmt.Errorf("get %d: %v, %w", i, ok, err)
				}
			}
			table.Delete(tx, fmt.Sprintf("%04d", i))
		}
		return nil
	})
	if left := s.names(t, table, ""); len(left) != n-300 {
		t.Errorf("%d records are left", len(left))
	}
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
