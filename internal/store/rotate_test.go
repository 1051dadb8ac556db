package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

func TestRotateDataKey(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	const count = 100 // more than one batch
	n.fill(t, count)
	first := n.keyStatus(t)
	if len(first.DataKeys) != 1 || first.Records != 3*count || first.DataKeys[0].Records != 3*count || len(first.Damaged) != 0 {
		t.Fatalf("before: %+v", first)
	}
	for range 3 {
		if err := n.RotateDataKey(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.put(t, n.sealed, "0000", note{Text: "filled"})
	}
	if err := n.Reseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := n.keyStatus(t)
	if len(last.DataKeys) != 1 || last.Stale != 0 || last.DataKeys[0].Records != 3*count || len(last.Damaged) != 0 {
		t.Errorf("after: %+v", last)
	}
	if last.DataKeys[0].ID == first.DataKeys[0].ID {
		t.Error("the data key is still the first one")
	}
	n.ForgetKeys()
	n.checkFilled(t, count)
	n.stop()
	openNotes(t, n.dir).checkFilled(t, count)
}

// TestSnapshotOutlivesItsKey opens records in a transaction that began before
// their data key was dropped.
func TestSnapshotOutlivesItsKey(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	n.fill(t, 1)
	err := n.View(t.Context(), func(tx *store.Tx) error {
		if err := errors.Join(n.RotateDataKey(t.Context()), n.Reseal(t.Context())); err != nil {
			return err
		}
		for _, table := range n.tables() {
			if v, ok, err := table.Get(tx, "0000"); !ok || v.Text != "filled" || err != nil {
				t.Errorf("%+v, %v, %v", v, ok, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if damaged := n.Damaged(); len(damaged) > 0 {
		t.Errorf("damaged: %v", damaged)
	}
}

// TestRestartContinuesDataKeyRotation stops the store when some records have
// been rewritten and others have not.
func TestRestartContinuesDataKeyRotation(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	const count = 100
	n.fill(t, count)
	var commits atomic.Int32
	n.WrapKV(func(kv clientv3.KV) clientv3.KV {
		return &wrappedKV{KV: kv, commit: func(commit func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error) {
			if commits.Add(1) > 3 { // the rotation, and two batches
				return nil, errInjected
			}
			return commit()
		}}
	})
	if err := n.RotateDataKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a batch has failed", func() bool { return commits.Load() > 3 })
	st := n.keyStatus(t)
	if len(st.DataKeys) != 2 || st.Stale == 0 || st.Stale == 3*count || st.DataKeys[0].Records != st.Stale || !st.DataKeys[1].Primary {
		t.Errorf("in the middle: %+v", st)
	}
	n.stop()

	again := openNotes(t, n.dir)
	again.checkFilled(t, count)
	eventually(t, "the old key has gone", func() bool { return len(again.keyStatus(t).DataKeys) == 1 })
	again.ForgetKeys()
	again.checkFilled(t, count)
}

// TestNoCommitUnderOldDataKey rotates on one server while a transaction of
// another is under way.
func TestNoCommitUnderOldDataKey(t *testing.T) {
	t.Parallel()
	etcd, dir := storetest.NewEtcd(t), t.TempDir()
	a, b := openShared(t, etcd, dir), openShared(t, etcd, dir)
	runs := 0
	err := b.Update(t.Context(), func(tx *store.Tx) error {
		if runs++; runs == 1 {
			if err := a.RotateDataKey(t.Context()); err != nil {
				return err
			}
		}
		return b.sealed.Put(tx, "k", note{N: runs})
	})
	if err != nil || runs != 2 {
		t.Fatalf("%d runs, %v", runs, err)
	}
	if st := a.keyStatus(t); st.Stale != 0 || st.Records != 1 {
		t.Errorf("status: %+v", st)
	}
	if v, ok, err := a.sealed.Load(t.Context(), "k"); v.N != 2 || !ok || err != nil {
		t.Errorf("%+v, %v, %v", v, ok, err)
	}
}

// TestRotationUnderLoad rotates and rewrites on two servers while both write
// and read.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	etcd, dir := storetest.NewEtcd(t), t.TempDir()
	servers := []*notes{openShared(t, etcd, dir), openShared(t, etcd, dir)}
	servers[0].fill(t, 80)
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var increments atomic.Int64
	for _, s := range servers {
		for _, table := range s.tables() {
			load.Go(func() {
				for ctx.Err() == nil {
					err := s.Update(t.Context(), func(tx *store.Tx) error {
						v, _, err := table.Get(tx, "counter")
						if err != nil {
							return err
						}
						v.N++
						return table.Put(tx, "counter", v)
					})
					if err != nil {
						t.Error(err)
					}
					increments.Add(1)
					if _, _, err := table.Load(t.Context(), fmt.Sprintf("%04d", increments.Load()%80)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	var rotations sync.WaitGroup
	for _, s := range servers {
		rotations.Go(func() {
			for i := range 4 {
				if err := s.RotateDataKey(t.Context()); err != nil {
					t.Error(err)
				}
				if i%2 == 1 {
					if err := s.Reseal(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	rotations.Wait()
	if err := servers[0].RotateKEK(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	load.Wait()
	if err := servers[1].Reseal(t.Context()); err != nil {
		t.Error(err)
	}
	third := openShared(t, etcd, dir)
	if st := third.keyStatus(t); len(st.DataKeys) != 1 || st.Stale != 0 || len(st.Damaged) != 0 || st.Records != 3*81 {
		t.Errorf("status: %+v", st)
	}
	sum := 0
	for _, table := range third.tables() {
		v, _, err := table.Load(t.Context(), "counter")
		if err != nil {
			t.Error(err)
		}
		sum += v.N
	}
	if int64(sum) != increments.Load() {
		t.Errorf("%d increments are left of %d", sum, increments.Load())
	}
	for _, s := range append(servers, third) {
		if damaged := s.Damaged(); len(damaged) != 0 {
			t.Errorf("damaged: %v", damaged)
		}
	}
}
