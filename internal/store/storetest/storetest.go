// Package storetest gives tests a real store: an embedded etcd in a
// temporary directory, sealed, loaded and running, or an etcd server with TLS
// that several stores can share. It also owns the [Conformance] suite, which
// says what every store must do wherever its records are.
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
	Start(t, s, declare)
	return s
}

// Open opens a store in dir without loading it. Its key-encryption key is
// dir/kek.json.
func Open(t testing.TB, dir string) (*store.Store, error) {
	return store.Open(t.Context(), store.Options{
		Dir: filepath.Join(dir, "etcd"),
		KEK: store.KEKInFile(filepath.Join(dir, "kek.json")),
		Log: Log(t),
	})
}

// Start calls declare to make an opened store's tables, loads it and runs it.
// The function that it returns stops and closes the store; the end of the
// test does too.
func Start(t testing.TB, s *store.Store, declare func(*store.Store)) (stop func()) {
	t.Helper()
	declare(s)
	if err := s.Load(t.Context()); err != nil {
		s.Close()
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx); close(done) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	}
	t.Cleanup(stop)
	return stop
}

// Log returns a logger that writes to the test's output.
func Log(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }
