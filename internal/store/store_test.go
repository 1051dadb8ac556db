package store_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

func TestReopen(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	n.fill(t, 3)
	n.stop()
	again := openNotes(t, n.dir)
	again.checkFilled(t, 3)
	if vs, err := again.plain.Find(t.Context(), "text", "filled"); len(vs) != 3 || err != nil {
		t.Errorf("index: %v, %v", vs, err)
	}
}

// TestOpenWithWrongKEK checks that a store which cannot be opened is left as
// it is, and that the error says why.
func TestOpenWithWrongKEK(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	n.fill(t, 1)
	n.stop()
	right := readFile(t, n.kekFile())

	if err := os.Remove(n.kekFile()); err != nil {
		t.Fatal(err)
	}
	_, err := storetest.Open(t, n.dir)
	if err == nil || !strings.Contains(err.Error(), n.kekFile()+" is missing") {
		t.Errorf("missing: %v", err)
	}
	if _, err := os.Stat(n.kekFile()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a new key was made: %v", err)
	}

	if _, err := store.CreateFileKEK(n.kekFile()); err != nil {
		t.Fatal(err)
	}
	wrong := readFile(t, n.kekFile())
	_, err = storetest.Open(t, n.dir)
	if _, ok := errors.AsType[*store.WrongKEKError](err); !ok || !strings.Contains(err.Error(), "does not open this store") {
		t.Errorf("wrong: %v", err)
	}
	if string(readFile(t, n.kekFile())) != string(wrong) {
		t.Error("the wrong key was overwritten")
	}

	for what, content := range map[string]string{"empty": "", "no keyset": `{"key": "s3cret-in-the-file"}`, "truncated": string(right[:len(right)/2])} {
		writeFile(t, n.kekFile(), []byte(content))
		if _, err := storetest.Open(t, n.dir); err == nil || !strings.Contains(err.Error(), "is not a Tink keyset") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", what, err)
		}
	}

	writeFile(t, n.kekFile(), right)
	if err := os.Chmod(n.kekFile(), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := storetest.Open(t, n.dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by others: %v", err)
	}
	if err := os.Chmod(n.kekFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	openNotes(t, n.dir).checkFilled(t, 1)
}

// TestOpenWithoutKeyring checks that records which nothing can open are not
// taken for an empty store.
func TestOpenWithoutKeyring(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	n.fill(t, 1)
	if _, err := n.Client().Delete(t.Context(), "podkey/~keyring"); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if _, err := storetest.Open(t, n.dir); err == nil || !strings.Contains(err.Error(), "no keyring") {
		t.Errorf("err = %v", err)
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	if _, err := storetest.Open(t, n.dir); err == nil || !strings.Contains(err.Error(), "in use by another podkey server") {
		t.Errorf("err = %v", err)
	}
}

// TestWithoutRun checks what works before Run and after it.
func TestWithoutRun(t *testing.T) {
	t.Parallel()
	s, err := storetest.Open(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := &notes{}
	n.declare(s)
	if _, _, err := n.sealed.Load(t.Context(), "k"); err == nil {
		t.Error("read before Load")
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("Run before Load")
	}

	if s, err = storetest.Open(t, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n.declare(s)
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := n.sealed.Load(t.Context(), "k"); ok || err != nil {
		t.Errorf("before Run: %v, %v", ok, err)
	}
	put := func(ctx context.Context) error {
		return s.Update(ctx, func(tx *store.Tx) error { return n.sealed.Put(tx, "k", note{N: 1}) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := put(ctx); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Update before Run: %v", err)
	}
	if s.Waiters() != 0 {
		t.Error("a reader that gave up is still waited for")
	}
	waiting := make(chan error)
	go func() { waiting <- put(t.Context()) }()
	eventually(t, "the update waits", func() bool { return s.Waiters() == 1 })

	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- s.Run(ctx) }()
	if err := <-waiting; err != nil {
		t.Errorf("Update that waited for Run: %v", err)
	}
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	before, err := s.Client().Get(t.Context(), "podkey/~clock")
	if err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Update after Run: %v", err)
	}
	if after, err := s.Client().Get(t.Context(), "podkey/~clock"); err != nil || after.Header.Revision != before.Header.Revision {
		t.Errorf("Update after Run has written something; %v", err)
	}
	if v, ok, err := n.sealed.Load(t.Context(), "k"); v.N != 1 || !ok || err != nil {
		t.Errorf("read after Run: %+v, %v, %v", v, ok, err)
	}
}

// TestRunEndsWhileUpdateWaits ends Run between a commit and its arrival.
func TestRunEndsWhileUpdateWaits(t *testing.T) {
	t.Parallel()
	s, err := storetest.Open(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n := &notes{}
	n.declare(s)
	s.WrapWatcher(deafWatcher)
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran, updated := make(chan error), make(chan error)
	go func() { ran <- s.Run(ctx) }()
	go func() {
		updated <- s.Update(t.Context(), func(tx *store.Tx) error { return n.sealed.Put(tx, "k", note{}) })
	}()
	eventually(t, "the update waits", func() bool { return s.Waiters() == 1 })
	stop()
	if err := <-updated; !fault.Is(err, fault.Unavailable) {
		t.Errorf("err = %v", err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
	s.Close()
	s.Close()
}

func TestMisuse(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	panics := func(what string, fn func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s did not panic", what)
			}
		}()
		fn()
	}
	view := func(fn func(tx *store.Tx)) {
		n.View(t.Context(), func(tx *store.Tx) error { fn(tx); return nil })
	}
	panics("put in a view", func() { view(func(tx *store.Tx) { n.sealed.Put(tx, "k", note{}) }) })
	panics("delete in a view", func() { view(func(tx *store.Tx) { n.sealed.Delete(tx, "k") }) })
	panics("delete by prefix in a view", func() { view(func(tx *store.Tx) { n.sealed.DeletePrefix(tx, "k") }) })
	panics("table after Load", func() { store.NewTable[note](n.Store, "late", store.TableOptions[note]{}) })
	panics("unknown index", func() { n.plain.Find(t.Context(), "none", "") })

	s, err := storetest.Open(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	index := map[string]func(*note) []string{"x": func(*note) []string { return nil }}
	store.NewTable[note](s, "taken", store.TableOptions[note]{Mode: store.Disk})
	for _, name := range []string{"", "a/b", "~a", "taken"} {
		panics("table "+name, func() { store.NewTable[note](s, name, store.TableOptions[note]{}) })
	}
	panics("index of a sealed table", func() { store.NewTable[note](s, "s", store.TableOptions[note]{Indexes: index}) })
}

// TestTooLarge puts more than etcd takes in one request.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	for _, n := range []*notes{openNotes(t, ""), openShared(t, storetest.NewEtcd(t), t.TempDir())} {
		for _, size := range []int{5 << 20, 20 << 20} {
			err := n.Update(t.Context(), func(tx *store.Tx) error {
				return n.disk.Put(tx, "k", note{Text: strings.Repeat("x", size)})
			})
			if !fault.Is(err, fault.TooLarge) {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
		n.fill(t, 1) // and it goes on
	}
}

// TestOwnStoredForm has a table whose records are not stored as JSON.
func TestOwnStoredForm(t *testing.T) {
	t.Parallel()
	for _, mode := range []store.Mode{store.Sealed, store.Plain, store.Disk} {
		var table *store.Table[note]
		s := storetest.New(t, "", func(s *store.Store) {
			table = store.NewTable(s, "own", store.TableOptions[note]{
				Mode:    mode,
				Marshal: func(n *note) ([]byte, error) { return []byte(n.Text), nil },
				Unmarshal: func(b []byte, n *note) error {
					if string(b) == "unreadable" {
						return errors.New("cannot read " + string(b))
					}
					n.Text = string(b)
					return nil
				},
			})
		})
		put := func(text string) {
			t.Helper()
			if err := s.Update(t.Context(), func(tx *store.Tx) error { return table.Put(tx, "k", note{Text: text, N: 7}) }); err != nil {
				t.Error(err)
			}
		}
		put("not JSON")
		if v, ok, err := table.Load(t.Context(), "k"); v != (note{Text: "not JSON"}) || !ok || err != nil {
			t.Errorf("mode %d: %+v, %v, %v", mode, v, ok, err)
		}
		put("unreadable")
		if _, ok, err := table.Load(t.Context(), "k"); ok || err == nil || strings.Contains(err.Error(), "cannot read") {
			t.Errorf("mode %d: %v, %v", mode, ok, err)
		}
	}
}
