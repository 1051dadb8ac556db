// Package storetest gives tests a real store: an embedded etcd in a
// temporary directory, sealed, loaded and running.
package storetest

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/podkey/podkey/internal/store"
)

// New opens a store in dir (a new temporary directory if empty), calls
// declare to make its tables, loads it and runs it until the test ends.
func New(t testing.TB, dir string, declare func(*store.Store)) *store.Store {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	s, err := Open(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	declare(s)
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return s
}

// Open opens a store in dir without loading it. Its key-encryption key is
// dir/kek.json.
func Open(t testing.TB, dir string) (*store.Store, error) {
	return store.Open(t.Context(), store.Options{
		Dir: filepath.Join(dir, "etcd"),
		KEK: store.KEKInFile(filepath.Join(dir, "kek.json")),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
}
