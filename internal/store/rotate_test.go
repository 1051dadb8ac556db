package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
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

// TestKEKRotationCrashPoints stops after each step of the rotation of a file
// key; see rotateFileKEK for their numbers.
func TestKEKRotationCrashPoints(t *testing.T) {
	t.Parallel()
	for point, steps := range []func(t *testing.T, n *notes){
		func(*testing.T, *notes) {},
		func(t *testing.T, n *notes) {
			if _, err := n.BeginKEK(); err != nil {
				t.Fatal(err)
			}
		},
		func(t *testing.T, n *notes) {
			both, err := n.BeginKEK()
			if err != nil {
				t.Fatal(err)
			}
			if err := n.RewrapKEK(t.Context(), both); err != nil {
				t.Fatal(err)
			}
		},
		func(t *testing.T, n *notes) {
			if err := n.RotateKEK(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(fmt.Sprint("after step ", point), func(t *testing.T) {
			n := openNotes(t, "")
			n.fill(t, 3)
			original := readFile(t, n.kekFile())
			firstKEK := n.keyStatus(t).KEK
			steps(t, n)
			n.stop()

			again := openNotes(t, n.dir)
			again.checkFilled(t, 3)
			finished := func() bool {
				kek, err := store.ReadFileKEK(again.kekFile())
				if err != nil {
					t.Fatal(err)
				}
				st := again.keyStatus(t)
				return kek.Size() == 1 && st.KEK == kek.ID() && !st.KEKPending
			}
			eventually(t, "the rotation is finished", finished)
			if changed := again.keyStatus(t).KEK != firstKEK; changed != (point > 0) {
				t.Errorf("key-encryption key %s after %s", again.keyStatus(t).KEK, firstKEK)
			}
			again.stop()

			openAgain := openNotes(t, n.dir)
			openAgain.checkFilled(t, 3)
			openAgain.stop()
			if point == 0 {
				return
			}
			writeFile(t, n.kekFile(), original)
			if _, err := storetest.Open(t, n.dir); !errors.As(err, new(*store.WrongKEKError)) {
				t.Errorf("the old key still opens the store: %v", err)
			}
		})
	}
}

// TestKEKRotationFails lets etcd fail in the middle of a rotation, before and
// after it did what it was asked.
func TestKEKRotationFails(t *testing.T) {
	t.Parallel()
	for _, effect := range []bool{false, true} {
		t.Run(fmt.Sprint("effect ", effect), func(t *testing.T) {
			n := openNotes(t, "")
			n.fill(t, 3)
			var failed atomic.Bool
			n.WrapKV(func(kv clientv3.KV) clientv3.KV {
				return &wrappedKV{KV: kv, commit: func(commit func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error) {
					if failed.CompareAndSwap(false, true) {
						if effect {
							commit()
						}
						return nil, errInjected
					}
					return commit()
				}}
			})
			before := n.keyStatus(t).KEK
			if err := n.RotateKEK(t.Context()); !errors.Is(err, errInjected) {
				t.Fatalf("err = %v", err)
			}
			kek, err := store.ReadFileKEK(n.kekFile())
			if err != nil || kek.ID() == before {
				t.Fatalf("%v, %v", kek.ID(), err)
			}
			eventually(t, "the rotation is finished", func() bool {
				after, err := store.ReadFileKEK(n.kekFile())
				return err == nil && after.Size() == 1 && after.ID() == kek.ID()
			})
			if st := n.keyStatus(t); st.KEK != kek.ID() {
				t.Errorf("status: %+v", st)
			}
			n.stop()
			openNotes(t, n.dir).checkFilled(t, 3)
		})
	}
}

func TestKEKRotationRefusals(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	n.fill(t, 1)
	original := readFile(t, n.kekFile())

	lock, err := fileutil.TryLockFile(n.kekFile()+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := n.RotateKEK(ctx); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("while another process rotates: %v", err)
	}
	lock.Close()

	if err := os.Remove(n.kekFile()); err != nil {
		t.Fatal(err)
	}
	if err := n.RotateKEK(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	if _, err := store.CreateFileKEK(n.kekFile()); err != nil {
		t.Fatal(err)
	}
	other := readFile(t, n.kekFile())
	if err := n.RotateKEK(t.Context()); !errors.As(err, new(*store.WrongKEKError)) {
		t.Errorf("with the key of another store: %v", err)
	}
	if string(readFile(t, n.kekFile())) != string(other) {
		t.Error("the other store's key was changed")
	}
	writeFile(t, n.kekFile(), original)
	if err := n.RotateKEK(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestKEKRotationWithSharedFile has two servers with one key file.
func TestKEKRotationWithSharedFile(t *testing.T) {
	t.Parallel()
	etcd, dir := storetest.NewEtcd(t), t.TempDir()
	a, b := openShared(t, etcd, dir), openShared(t, etcd, dir)
	a.fill(t, 3)
	for _, s := range []*notes{a, b, a} {
		if err := s.RotateKEK(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.RotateDataKey(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.RotateDataKey(t.Context()); err != nil {
		t.Error(err)
	}
	a.checkFilled(t, 3)
	b.checkFilled(t, 3)
	openShared(t, etcd, dir).checkFilled(t, 3)
}

// TestKEKRotationWithCopiedFile has two servers with a key file each. The one
// that is not told of the new key goes on, but makes no keyring that the
// other cannot open, and says so when it cannot go on.
func TestKEKRotationWithCopiedFile(t *testing.T) {
	t.Parallel()
	etcd := storetest.NewEtcd(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	a := openShared(t, etcd, dirA)
	writeFile(t, filepath.Join(dirB, "kek.json"), readFile(t, a.kekFile()))
	b := openShared(t, etcd, dirB)
	a.fill(t, 2)
	if err := a.RotateKEK(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.put(t, b.sealed, "from b", note{N: 1})
	if v, ok, err := a.sealed.Load(t.Context(), "from b"); v.N != 1 || !ok || err != nil {
		t.Errorf("%+v, %v, %v", v, ok, err)
	}
	if err := b.RotateDataKey(t.Context()); !errors.As(err, new(*store.WrongKEKError)) {
		t.Errorf("rotation without the key-encryption key: %v", err)
	}
	if err := a.RotateDataKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := b.Update(t.Context(), func(tx *store.Tx) error { return b.sealed.Put(tx, "again from b", note{}) })
	if err == nil || !strings.Contains(err.Error(), "key-encryption key") {
		t.Errorf("commit without the data key: %v", err)
	}
	writeFile(t, b.kekFile(), readFile(t, a.kekFile()))
	b.stop()
	b = openShared(t, etcd, dirB)
	b.put(t, b.sealed, "again from b", note{})
}

// TestRotateKEKOfAnotherKind has a key-encryption key that is not in a file,
// such as a KMS, whose versions are not our affair.
func TestRotateKEKOfAnotherKind(t *testing.T) {
	t.Parallel()
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	a, err := aead.New(h)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	open := func() *notes {
		s, err := store.Open(t.Context(), store.Options{
			Dir: dir, Log: storetest.Log(t),
			KEK: func(bool) (store.KEK, error) { return store.NewKEK(a, "kms://key/1"), nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		n := &notes{}
		n.stop = storetest.Start(t, s, n.declare)
		return n
	}
	n := open()
	n.fill(t, 2)
	stored := func() string {
		got, err := n.Client().Get(t.Context(), "podkey/~keyring")
		if err != nil {
			t.Fatal(err)
		}
		return string(got.Kvs[0].Value)
	}
	before := stored()
	if err := n.RotateKEK(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stored() == before {
		t.Error("the keyring was not wrapped again")
	}
	if st := n.keyStatus(t); st.KEK != "kms://key/1" || st.KEKPending {
		t.Errorf("status: %+v", st)
	}
	n.stop()
	open().checkFilled(t, 2)
}
