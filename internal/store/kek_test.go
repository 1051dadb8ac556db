package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
	if err := a.Reseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := b.Update(t.Context(), func(tx *store.Tx) error { return b.sealed.Put(tx, "again from b", note{}) })
	if err == nil || !strings.Contains(err.Error(), "key-encryption key") {
		t.Errorf("commit without the data key: %v", err)
	}
	if err := b.Ping(t.Context()); err == nil {
		t.Error("b says that it is well")
	}
	writeFile(t, b.kekFile(), readFile(t, a.kekFile()))
	eventually(t, "b has found the new key", func() bool {
		return b.Update(t.Context(), func(tx *store.Tx) error { return b.sealed.Put(tx, "again from b", note{}) }) == nil
	})
	b.checkFilledOf(t, 2, b.plain, b.disk)
	if d := b.Damaged(); len(d) > 0 {
		t.Errorf("damaged: %v", d)
	}
	if err := b.Ping(t.Context()); err != nil {
		t.Error(err)
	}
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
