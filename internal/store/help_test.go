package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

type note struct {
	Text string
	N    int
}

// notes is a store with a table of notes in each mode.
type notes struct {
	*store.Store
	dir                 string
	sealed, plain, disk *store.Table[note]
	stop                func()
}

func (n *notes) declare(s *store.Store) {
	n.Store = s
	n.sealed = store.NewTable[note](s, "sealed", store.TableOptions[note]{})
	n.disk = store.NewTable[note](s, "disk", store.TableOptions[note]{Mode: store.Disk})
	n.plain = store.NewTable[note](s, "plain", store.TableOptions[note]{
		Mode:    store.Plain,
		Indexes: map[string]func(*note) []string{"text": func(n *note) []string { return []string{n.Text} }},
	})
}

func (n *notes) tables() []*store.Table[note] {
	return []*store.Table[note]{n.sealed, n.plain, n.disk}
}

// openNotes opens an embedded store in dir, a new one if empty.
func openNotes(t testing.TB, dir string) *notes {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	s, err := storetest.Open(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	n := &notes{dir: dir}
	n.stop = storetest.Start(t, s, n.declare)
	return n
}

// openShared opens a store in an external etcd.
func openShared(t testing.TB, etcd *storetest.Etcd, dir string) *notes {
	t.Helper()
	s, err := etcd.Open(t, dir, "")
	if err != nil {
		t.Fatal(err)
	}
	n := &notes{dir: dir}
	n.stop = storetest.Start(t, s, n.declare)
	return n
}

func (n *notes) kekFile() string { return filepath.Join(n.dir, "kek.json") }

func (n *notes) put(t testing.TB, table *store.Table[note], key string, v note) {
	t.Helper()
	if err := n.Update(t.Context(), func(tx *store.Tx) error { return table.Put(tx, key, v) }); err != nil {
		t.Errorf("put %s: %v", key, err)
	}
}

// fill puts count notes into each table.
func (n *notes) fill(t testing.TB, count int) {
	t.Helper()
	err := n.Update(t.Context(), func(tx *store.Tx) error {
		for _, table := range n.tables() {
			for i := range count {
				if err := table.Put(tx, fmt.Sprintf("%04d", i), note{Text: "filled", N: i}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// checkFilled checks that what fill has put is there.
func (n *notes) checkFilled(t testing.TB, count int) {
	t.Helper()
	n.checkFilledOf(t, count, n.tables()...)
}

func (n *notes) checkFilledOf(t testing.TB, count int, tables ...*store.Table[note]) {
	t.Helper()
	for i, table := range tables {
		es, err := table.Scan(t.Context(), "", "", 0)
		if err != nil || len(es) != count {
			t.Errorf("table %d: %d records, %v", i, len(es), err)
		}
		for j, e := range es {
			if e.Err != nil || e.Value != (note{Text: "filled", N: j}) {
				t.Errorf("table %d: %+v", i, e)
			}
		}
	}
}

func (n *notes) keyStatus(t testing.TB) store.KeyStatus {
	t.Helper()
	st, err := n.KeyStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// eventually calls done until it reports true.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// wrappedKV stands between a store and etcd. Its functions may be nil.
type wrappedKV struct {
	clientv3.KV
	get    func(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error)
	commit func(commit func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error)
}

func (k *wrappedKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if k.get == nil {
		return k.KV.Get(ctx, key, opts...)
	}
	return k.get(ctx, key, opts...)
}

func (k *wrappedKV) Txn(ctx context.Context) clientv3.Txn {
	return &wrappedTxn{k.KV.Txn(ctx), k.commit}
}

type wrappedTxn struct {
	clientv3.Txn
	around func(commit func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error)
}

func (t *wrappedTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.Txn = t.Txn.If(c...); return t }
func (t *wrappedTxn) Then(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(o...); return t }
func (t *wrappedTxn) Else(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(o...); return t }

func (t *wrappedTxn) Commit() (*clientv3.TxnResponse, error) {
	if t.around == nil {
		return t.Txn.Commit()
	}
	return t.around(t.Txn.Commit)
}

// logBuffer is a log that can be read.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

var errInjected = errors.New("injected")

// deafWatcher is a watch that never reports anything.
func deafWatcher(w clientv3.Watcher) clientv3.Watcher { return deaf{w} }

type deaf struct{ clientv3.Watcher }

func (deaf) Watch(context.Context, string, ...clientv3.OpOption) clientv3.WatchChan {
	return make(chan clientv3.WatchResponse)
}
