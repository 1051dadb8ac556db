package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

type note struct {
	Text string
	N    int
}

func TestUpdateIsSeenByEveryLaterRead(t *testing.T) {
	var notes *store.Table[note]
	s := storetest.New(t, "", func(s *store.Store) { notes = store.NewTable[note](s, "note", store.TableOptions[note]{}) })
	ctx := t.Context()
	for i := range 50 {
		key := fmt.Sprint("k", i%5)
		if err := s.Update(ctx, func(tx *store.Tx) error { return notes.Put(tx, key, note{Text: "x", N: i}) }); err != nil {
			t.Fatal(err)
		}
		got, ok, err := notes.Load(ctx, key)
		if err != nil || !ok || got.N != i {
			t.Fatalf("after write %d: %+v %v %v", i, got, ok, err)
		}
	}
}

func TestConcurrentIncrementsAllCount(t *testing.T) {
	var notes *store.Table[note]
	s := storetest.New(t, "", func(s *store.Store) { notes = store.NewTable[note](s, "note", store.TableOptions[note]{}) })
	const workers, each = 8, 20
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				err := s.Update(t.Context(), func(tx *store.Tx) error {
					n, _, err := notes.Get(tx, "n")
					if err != nil {
						return err
					}
					n.N++
					return notes.Put(tx, "n", n)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n, _, _ := notes.Load(t.Context(), "n"); n.N != workers*each {
		t.Errorf("n = %d, want %d", n.N, workers*each)
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	t.Run("write", func(t *testing.T) {
		var notes *store.Table[note]
		s := storetest.New(t, dir, func(s *store.Store) { notes = store.NewTable[note](s, "note", store.TableOptions[note]{}) })
		if err := s.Update(t.Context(), func(tx *store.Tx) error { return notes.Put(tx, "a", note{Text: "kept"}) }); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("missing key", func(t *testing.T) {
		kek := filepath.Join(dir, "kek.json")
		b, err := os.ReadFile(kek)
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(kek)
		defer os.WriteFile(kek, b, 0o600)
		_, err = storetest.Open(t, dir)
		if err == nil || !strings.Contains(err.Error(), "is missing") {
			t.Fatalf("err = %v", err)
		}
		if _, err := os.Stat(kek); err == nil {
			t.Fatal("a new key was made")
		}
		if _, err := store.CreateFileKEK(kek); err != nil {
			t.Fatal(err)
		}
		_, err = storetest.Open(t, dir)
		if err == nil || !strings.Contains(err.Error(), "does not open this store") {
			t.Fatalf("err = %v", err)
		}
	})
	t.Run("read", func(t *testing.T) {
		var notes *store.Table[note]
		storetest.New(t, dir, func(s *store.Store) { notes = store.NewTable[note](s, "note", store.TableOptions[note]{}) })
		if n, ok, err := notes.Load(t.Context(), "a"); err != nil || !ok || n.Text != "kept" {
			t.Fatalf("%+v %v %v", n, ok, err)
		}
	})
}
