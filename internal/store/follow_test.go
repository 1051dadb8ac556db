package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

// TestCompactedState compacts the history under the feet of a transaction
// that reads a Disk table: it begins again.
func TestCompactedState(t *testing.T) {
	t.Parallel()
	open := map[string]func(t *testing.T) *notes{
		"embedded": func(t *testing.T) *notes { return openNotes(t, "") },
		"external": func(t *testing.T) *notes { return openShared(t, storetest.NewEtcd(t), t.TempDir()) },
	}
	for where, open := range open {
		t.Run(where, func(t *testing.T) {
			n := open(t)
			n.put(t, n.disk, "k", note{N: 1})
			compact := func() {
				n.put(t, n.disk, "k", note{N: 2})
				if _, err := n.Client().Compact(t.Context(), n.Revision()); err != nil {
					t.Fatal(err)
				}
			}
			type run = func(ctx context.Context, fn func(tx *store.Tx) error) error
			for _, run := range []run{n.View, n.Update} {
				for name, read := range map[string]func(tx *store.Tx) (note, error){
					"get": func(tx *store.Tx) (note, error) { v, _, err := n.disk.Get(tx, "k"); return v, err },
					"list": func(tx *store.Tx) (v note, err error) {
						es, err := n.disk.List(tx, "k", "", 0)
						if len(es) == 1 {
							v = es[0].Value
						}
						return v, err
					},
					"get, unchecked": func(tx *store.Tx) (note, error) { v, _, _ := n.disk.Get(tx, "k"); return v, nil },
				} {
					runs, last := 0, note{}
					err := run(t.Context(), func(tx *store.Tx) (err error) {
						if runs++; runs == 1 {
							compact()
						}
						last, err = read(tx)
						return err
					})
					if err != nil || runs != 2 || last.N != 2 {
						t.Errorf("%s: %d runs, %+v, %v", name, runs, last, err)
					}
				}
				runs := 0
				err := run(t.Context(), func(tx *store.Tx) error {
					runs++
					compact() // each time
					_, _, err := n.disk.Get(tx, "k")
					return err
				})
				if !fault.Is(err, fault.Unavailable) || runs > 10 {
					t.Errorf("%d runs, %v", runs, err)
				}
			}
		})
	}
}

// TestOthersMoveTheRevision lets etcd's revision run away by others' writes,
// and compacts: our state must not be left behind in what is forgotten.
func TestOthersMoveTheRevision(t *testing.T) {
	t.Parallel()
	etcd := storetest.NewEtcd(t)
	n := openShared(t, etcd, t.TempDir())
	n.put(t, n.disk, "k", note{N: 1})
	c := etcd.Client(t)
	for range 5 {
		put, err := c.Put(t.Context(), "another program's key", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Compact(t.Context(), put.Header.Revision); err != nil {
			t.Fatal(err)
		}
		if v, ok, err := n.disk.Load(t.Context(), "k"); v.N != 1 || !ok || err != nil {
			t.Errorf("%+v, %v, %v", v, ok, err)
		}
	}
	n.put(t, n.disk, "k", note{N: 2})
}

// TestLateFollower starts to follow when much has happened, a rotation of the
// data key among it, and it arrives all at once; or when it has been compacted.
func TestLateFollower(t *testing.T) {
	t.Parallel()
	for _, compact := range []bool{false, true} {
		t.Run(fmt.Sprint("compacted ", compact), func(t *testing.T) {
			etcd, dir := storetest.NewEtcd(t), t.TempDir()
			a := openShared(t, etcd, dir)
			a.fill(t, 5)
			s, err := etcd.Open(t, dir, "")
			if err != nil {
				t.Fatal(err)
			}
			b := &notes{dir: dir}
			b.declare(s)
			if err := s.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			err = a.Update(t.Context(), func(tx *store.Tx) error {
				for _, table := range a.tables() {
					table.Delete(tx, "0004")
				}
				return nil
			})
			if err := errors.Join(err, a.RotateDataKey(t.Context()), a.Reseal(t.Context())); err != nil {
				t.Fatal(err)
			}
			a.put(t, a.plain, "0000", note{Text: "filled"})
			if compact {
				if err := a.RotateKEK(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, err := a.Client().Compact(t.Context(), a.Revision()); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error)
			go func() { ran <- s.Run(ctx) }()
			b.checkFilled(t, 4)
			if vs, err := b.plain.Find(t.Context(), "text", "filled"); len(vs) != 4 || err != nil {
				t.Errorf("index: %v, %v", vs, err)
			}
			b.put(t, b.sealed, "0000", note{Text: "filled"})
			a.checkFilled(t, 4)
			if d := b.Damaged(); len(d) > 0 {
				t.Errorf("damaged: %v", d)
			}
			cancel()
			if err := <-ran; err != nil {
				t.Error(err)
			}
			s.Close()
		})
	}
}

// TestRestoredEtcd is what happens when etcd's revision falls: nothing that is
// in memory is trusted any more.
func TestRestoredEtcd(t *testing.T) {
	t.Parallel()
	n := openShared(t, storetest.NewEtcd(t), t.TempDir())
	n.fill(t, 3)
	real := n.Revision()
	n.SetRevision(real + 1000)
	if _, _, err := n.sealed.Load(t.Context(), "0000"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("err = %v", err)
	}
	eventually(t, "the store is listed again", func() bool { return n.Revision() == real })
	n.checkFilled(t, 3)
	n.put(t, n.sealed, "0000", note{Text: "filled"})
}

// brittleWatcher is a watch that breaks after some events, and sometimes at
// once.
func brittleWatcher(w clientv3.Watcher) clientv3.Watcher { return brittle{w} }

type brittle struct{ clientv3.Watcher }

func (b brittle) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	ctx, cancel := context.WithCancel(ctx)
	in, out := b.Watcher.Watch(ctx, key, opts...), make(chan clientv3.WatchResponse)
	go func() {
		defer cancel()
		defer close(out)
		for range rand.IntN(20) {
			select {
			case resp, ok := <-in:
				if !ok {
					return
				}
				select {
				case out <- resp:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// TestFaults lets a share of the calls to etcd fail, before or after their
// effect, and the watch break: what is acknowledged survives, nothing is half
// written, and a reader never goes back.
func TestFaults(t *testing.T) {
	t.Parallel()
	open := map[string]func(t *testing.T, dir string) *store.Store{
		"embedded": func(t *testing.T, dir string) *store.Store {
			s, err := storetest.Open(t, dir)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
	etcd := storetest.NewEtcd(t)
	open["external"] = func(t *testing.T, dir string) *store.Store {
		s, err := etcd.Open(t, dir, "")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for where, open := range open {
		t.Run(where, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			var faulty atomic.Bool
			s.WrapWatcher(brittleWatcher)
			s.WrapKV(func(kv clientv3.KV) clientv3.KV {
				bad := func() bool { return faulty.Load() && rand.IntN(10) == 0 }
				return &wrappedKV{
					KV: kv,
					get: func(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
						if bad() {
							return nil, errInjected
						}
						return kv.Get(ctx, key, opts...)
					},
					commit: func(commit func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error) {
						if bad() {
							return nil, errInjected
						}
						resp, err := commit()
						if bad() {
							return nil, errInjected
						}
						return resp, err
					},
				}
			})
			n := &notes{dir: dir}
			n.stop = storetest.Start(t, s, n.declare)
			faulty.Store(true)
			const workers, each = 6, 40
			var acked, failed [workers]int
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					key := fmt.Sprint("k", w)
					for range each {
						attempt := 0
						err := n.Update(t.Context(), func(tx *store.Tx) error {
							v, _, err := n.sealed.Get(tx, key)
							if err != nil {
								return err
							}
							p, _, errP := n.plain.Get(tx, key)
							d, _, errD := n.disk.Get(tx, key)
							if err := errors.Join(errP, errD); err != nil {
								return err
							}
							if v.N < acked[w] || p != v || d != v {
								t.Errorf("%d was acknowledged, found %+v %+v %+v", acked[w], v, p, d)
							}
							attempt = v.N + 1
							for _, table := range n.tables() {
								if err := table.Put(tx, key, note{N: attempt}); err != nil {
									return err
								}
							}
							return nil
						})
						switch {
						case err == nil:
							acked[w] = attempt
						case errors.Is(err, errInjected):
							failed[w]++
						default:
							t.Errorf("another error: %v", err)
						}
					}
				})
			}
			wg.Wait()
			faulty.Store(false)
			n.stop()
			again := &notes{dir: dir}
			again.stop = storetest.Start(t, open(t, dir), again.declare)
			for w := range workers {
				if acked[w] == 0 || failed[w] == 0 {
					t.Errorf("worker %d: %d acknowledged, %d failed: the test tests nothing", w, acked[w], failed[w])
				}
				for _, table := range again.tables() {
					v, _, err := table.Load(t.Context(), fmt.Sprint("k", w))
					if err != nil || v.N < acked[w] || v.N > acked[w]+failed[w] {
						t.Errorf("worker %d: %d acknowledged, %d failed, found %d, %v", w, acked[w], failed[w], v.N, err)
					}
				}
			}
			again.stop()
		})
	}
}

// TestFullStore writes the same records again and again beyond the limit of
// the database: once it has been emptied of history, writes go on.
func TestFullStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Options{
		Dir: dir, MaxBytes: 6 << 20, KEK: store.KEKInFile(dir + "/kek.json"), Log: storetest.Log(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	n := &notes{dir: dir}
	storetest.Start(t, s, n.declare)
	big := strings.Repeat("x", 1<<20)
	put := func(i int) error {
		return n.Update(t.Context(), func(tx *store.Tx) error {
			return n.disk.Put(tx, fmt.Sprint("k", i%3), note{Text: big, N: i})
		})
	}
	refused := 0
	for i := range 12 {
		err := put(i)
		if err != nil {
			refused++
			if f, ok := fault.As(err); !ok || f.Kind != fault.Unavailable || f.Message != "The store is full." {
				t.Fatalf("err = %v", err)
			}
			eventually(t, "there is room", func() bool { return put(i) == nil })
		}
		if v, ok, err := n.disk.Load(t.Context(), fmt.Sprint("k", i%3)); v.N != i || !ok || err != nil {
			t.Errorf("%d, %v, %v", v.N, ok, err)
		}
	}
	if refused == 0 {
		t.Error("the store was never full: the test tests nothing")
	}
}

// TestManyWritesAreCompacted checks that history goes when it has grown large,
// without waiting for the clock.
func TestManyWritesAreCompacted(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	n.put(t, n.sealed, "k", note{})
	old := n.Revision()
	n.put(t, n.sealed, "k", note{})
	n.SetWritten(1 << 40)
	n.put(t, n.sealed, "k", note{})
	eventually(t, "the history has gone", func() bool {
		_, err := n.Client().Get(t.Context(), "podkey/sealed/k", clientv3.WithRev(old))
		return errors.Is(err, rpctypes.ErrCompacted)
	})
	n.put(t, n.sealed, "k", note{})
}
