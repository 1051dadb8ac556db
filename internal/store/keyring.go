package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	keyringContext = "podkey/keyring/v1"
	keyringVersion = 1
)

// KEK is a key-encryption key: it wraps the keyring and nothing else.
type KEK interface {
	tink.AEAD
	// ID names the key in error messages and in the keyring; it is no secret.
	ID() string
}

// custody is what a store knows of its keys.
type custody struct {
	ring   atomic.Pointer[keyring]
	source func(fresh bool) (KEK, error)

	mu  sync.Mutex
	kek KEK

	missed atomic.Bool // the stored keyring did not open

	rotating  sync.Mutex // held while one of the keys is being replaced
	resealing sync.Mutex // held while records are being rewritten
}

func (c *custody) currentKEK() KEK {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kek
}

func (c *custody) setKEK(k KEK) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kek = k
}

// unwrap opens a stored keyring with the key-encryption key at hand or, if
// that is not the right one any more, with what its source has now.
func (c *custody) unwrap(stored []byte) (*keyring, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kek != nil {
		ring, err := unwrapKeyring(stored, c.kek)
		if err == nil || !errors.As(err, new(*WrongKEKError)) {
			return ring, err
		}
	}
	kek, err := c.source(false)
	if err != nil {
		return nil, err
	}
	ring, err := unwrapKeyring(stored, kek)
	if err == nil {
		c.kek = kek
	}
	return ring, err
}

// keyring is an opened set of data keys. It is immutable; rotation makes a
// new one.
type keyring struct {
	handle  *keyset.Handle
	aead    tink.AEAD
	primary uint32   // id of the key that seals
	ids     []uint32 // of all keys
	kek     string   // id of the key that it is stored under
	mod     int64    // revision at which it was stored

	// prev is the keyring before this one if it had keys that this one lacks.
	// States and transactions that began under it still need them.
	prev *keyring
}

// wrappedKeyring is the stored form of a keyring: one record of its own, not
// sealed like the others but wrapped.
type wrappedKeyring struct {
	Version int    `json:"version"`
	KEK     string `json:"kek"`    // id of the key-encryption key, for messages
	Keyset  []byte `json:"keyset"` // Tink keyset, encrypted
}

// keyID writes a data key's id as it appears in ~primary and in KeyStatus.
func keyID(id uint32) string { return fmt.Sprintf("%08x", id) }

func newKeyring(h *keyset.Handle, kek string) (*keyring, error) {
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	info := h.KeysetInfo()
	k := &keyring{handle: h, aead: a, primary: info.GetPrimaryKeyId(), kek: kek}
	for _, key := range info.GetKeyInfo() {
		k.ids = append(k.ids, key.GetKeyId())
	}
	return k, nil
}

func generateKeyring() (*keyring, error) {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("generate data key: %w", err)
	}
	return newKeyring(h, "")
}

// wrap encrypts the keyring for storage.
func (k *keyring) wrap(kek KEK) ([]byte, error) {
	var buf bytes.Buffer
	if err := k.handle.WriteWithAssociatedData(keyset.NewBinaryWriter(&buf), kek, []byte(keyringContext)); err != nil {
		return nil, fmt.Errorf("wrap keyring: %w", err)
	}
	return json.Marshal(wrappedKeyring{Version: keyringVersion, KEK: kek.ID(), Keyset: buf.Bytes()})
}

// unwrapKeyring opens a stored keyring. The error says which key is wanted.
func unwrapKeyring(stored []byte, kek KEK) (*keyring, error) {
	var w wrappedKeyring
	if err := json.Unmarshal(stored, &w); err != nil {
		return nil, fmt.Errorf("the keyring record is damaged: %w", err)
	}
	if w.Version != keyringVersion {
		return nil, fmt.Errorf("the keyring has version %d, this program reads version %d", w.Version, keyringVersion)
	}
	h, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(w.Keyset)), kek, []byte(keyringContext))
	if err != nil {
		return nil, &WrongKEKError{Have: kek.ID(), Want: w.KEK, Err: err}
	}
	return newKeyring(h, w.KEK)
}

// WrongKEKError says that the store was sealed under another key-encryption
// key than the one given. Nothing has been changed.
type WrongKEKError struct {
	Have, Want string // ids of the keys
	Err        error  // what the key-encryption key said; a KMS may just be out of reach
}

func (e *WrongKEKError) Error() string {
	if e.Have == e.Want {
		return fmt.Sprintf("the key-encryption key %s does not open the store, though it is the right one by name: %v", e.Have, e.Err)
	}
	return fmt.Sprintf("the key-encryption key %s does not open this store, which is sealed under %s", e.Have, e.Want)
}

// Unwrap returns the cause.
func (e *WrongKEKError) Unwrap() error { return e.Err }

// withNewPrimary returns a keyring with a new primary key; the old keys stay,
// to read.
func (k *keyring) withNewPrimary() (*keyring, error) {
	m := keyset.NewManagerFromHandle(k.handle)
	id, err := m.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("add data key: %w", err)
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, fmt.Errorf("make data key primary: %w", err)
	}
	h, err := m.Handle()
	if err != nil {
		return nil, err
	}
	return newKeyring(h, k.kek)
}

// only returns a keyring with the primary key and those of the old ones that
// are kept.
func (k *keyring) only(keep func(id uint32) bool) (*keyring, error) {
	m := keyset.NewManagerFromHandle(k.handle)
	for _, id := range k.ids {
		if id == k.primary || keep(id) {
			continue
		}
		if err := m.Delete(id); err != nil {
			return nil, fmt.Errorf("drop data key: %w", err)
		}
	}
	h, err := m.Handle()
	if err != nil {
		return nil, err
	}
	return newKeyring(h, k.kek)
}

// stale reports whether the value is sealed under one of the keyring's old
// keys, and so waits to be rewritten.
func (k *keyring) stale(sealed []byte) bool {
	id, ok := sealedUnder(sealed)
	return ok && id != k.primary && slices.Contains(k.ids, id)
}

var errNoKeyring = errors.New("the store has records but no keyring: it has been lost or removed, and nothing can be opened; restore a backup")

// openKeyring reads the keyring or, in an empty store, creates it. Two
// servers that start at once on an empty etcd agree: the creation is
// conditional, and the loser reads what the winner wrote.
//
// The key-encryption key is kept safe before the keyring is written: a crash
// between the two leaves a key that the next start uses.
func (s *Store) openKeyring(ctx context.Context) error {
	key := s.prefix + keyringKey
	for {
		got, err := s.client.Txn(ctx).Then(
			clientv3.OpGet(key),
			clientv3.OpGet(s.prefix, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly()),
		).Commit()
		if err != nil {
			return fmt.Errorf("read keyring: %w", err)
		}
		if kvs := got.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
			ring, err := s.keys.unwrap(kvs[0].Value)
			if err != nil {
				return err
			}
			ring.mod = kvs[0].ModRevision
			s.keys.ring.Store(ring)
			return nil
		}
		if len(got.Responses[1].GetResponseRange().Kvs) > 0 {
			return errNoKeyring
		}
		kek, err := s.keys.source(true)
		if err != nil {
			return err
		}
		ring, err := generateKeyring()
		if err != nil {
			return err
		}
		wrapped, err := ring.wrap(kek)
		if err != nil {
			return err
		}
		done, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(
			clientv3.OpPut(key, string(wrapped)),
			clientv3.OpPut(s.prefix+primaryKey, keyID(ring.primary)),
		).Commit()
		if err != nil {
			return fmt.Errorf("create keyring: %w", err)
		}
		if done.Succeeded {
			ring.mod, ring.kek = done.Header.Revision, kek.ID()
			s.keys.setKEK(kek)
			s.keys.ring.Store(ring)
			return nil
		}
	}
}

// adoptKeyring takes over a keyring that another process, or this one, stored
// at revision mod; nil means that it was deleted. If it does not open, the
// old one stays in use, which still opens all that was sealed under it; a
// commit will be refused if it is out of date. The upkeep tries again.
func (s *Store) adoptKeyring(stored []byte, mod int64) {
	old := s.keys.ring.Load()
	if old.mod == mod {
		return
	}
	if stored == nil {
		s.log.Error("the keyring has been removed from etcd: restore a backup")
		return
	}
	ring, err := s.keys.unwrap(stored)
	if err != nil {
		s.log.Error("the keyring was changed by another server and does not open here: bring the key-encryption key up to date", "error", err)
		s.keys.missed.Store(true)
		s.kickUpkeep()
		return
	}
	s.keys.missed.Store(false)
	ring.mod, ring.prev = mod, old.prev
	if slices.ContainsFunc(old.ids, func(id uint32) bool { return !slices.Contains(ring.ids, id) }) {
		ring.prev = old
	}
	s.keys.ring.Store(ring)
	s.kickUpkeep()
}

// checkPrimary compares what etcd had as ~primary with our keyring. If they
// differ, and the events up to that moment have been applied, then the stored
// keyring does not open here, and no commit can succeed.
func (s *Store) checkPrimary(stored []*mvccpb.KeyValue) error {
	if len(stored) == 0 {
		return unavailable(errNoKeyring)
	}
	ring, id, rev := s.keys.ring.Load(), string(stored[0].Value), stored[0].ModRevision
	if st := s.state.Load(); id == keyID(ring.primary) || rev <= ring.mod || st == nil || rev > st.rev {
		return nil // the same; or ours is newer; or we have yet to hear of it
	}
	return unavailable(fmt.Errorf("records are now sealed under data key %s, which the key-encryption key at hand does not open: bring it up to date", id))
}
