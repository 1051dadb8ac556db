package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// On disk, the value of a record is
//
//	schema version (uvarint) | Tink ciphertext (0x01 | key id, 4 bytes | nonce | AES-256-GCM)
//
// and the ciphertext's associated data is sealContext(full key, schema
// version). So a record copied to another key, or read as another version,
// does not open.
//
// The keyring is one record of its own, not sealed but wrapped:
//
//	{"version":1,"kek":"<id of the key-encryption key>","keyset":"<Tink keyset, encrypted>"}
const (
	keyringContext = "podkey/keyring/v1"
	keyringVersion = 1
)

func sealContext(fullKey string, schema int) []byte {
	b := make([]byte, 0, len(fullKey)+12)
	b = append(b, fullKey...)
	b = append(b, 0)
	return binary.AppendUvarint(b, uint64(schema))
}

// KEK is a key-encryption key: it wraps the keyring and nothing else.
type KEK interface {
	tink.AEAD
	// ID names the key in error messages and in the keyring; it is no secret.
	ID() string
}

// keyring is an opened set of data keys. It is immutable; rotation makes a
// new one.
type keyring struct {
	handle  *keyset.Handle
	aead    tink.AEAD
	primary uint32
	kek     string
}

// wrappedKeyring is the stored form of a keyring.
type wrappedKeyring struct {
	Version int    `json:"version"`
	KEK     string `json:"kek"`
	Keyset  []byte `json:"keyset"`
}

func newKeyring(h *keyset.Handle, kek string) (*keyring, error) {
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	return &keyring{handle: h, aead: a, primary: h.KeysetInfo().GetPrimaryKeyId(), kek: kek}, nil
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
		return nil, &WrongKEKError{Have: kek.ID(), Want: w.KEK}
	}
	return newKeyring(h, w.KEK)
}

// WrongKEKError says that the store was sealed under another key-encryption
// key than the one given. Nothing has been changed.
type WrongKEKError struct{ Have, Want string }

func (e *WrongKEKError) Error() string {
	if e.Have == e.Want {
		return fmt.Sprintf("the key-encryption key %s does not open the store: its keyring is damaged", e.Have)
	}
	return fmt.Sprintf("the key-encryption key %s does not open this store, which is sealed under %s", e.Have, e.Want)
}

// rotate returns a keyring with a new primary key; the old keys stay, to read.
func (k *keyring) rotate() (*keyring, error) {
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

// prune returns a keyring with the primary key alone.
func (k *keyring) prune() (*keyring, error) {
	m := keyset.NewManagerFromHandle(k.handle)
	for _, info := range k.handle.KeysetInfo().GetKeyInfo() {
		if info.GetKeyId() != k.primary {
			if err := m.Delete(info.GetKeyId()); err != nil {
				return nil, fmt.Errorf("drop data key: %w", err)
			}
		}
	}
	h, err := m.Handle()
	if err != nil {
		return nil, err
	}
	return newKeyring(h, k.kek)
}

func (k *keyring) size() int { return k.handle.Len() }

// sealer seals and opens record values with the current keyring, which
// rotation swaps under it.
type sealer struct{ ring atomic.Pointer[keyring] }

func (s *sealer) seal(fullKey string, schema int, plain []byte) ([]byte, error) {
	ct, err := s.ring.Load().aead.Encrypt(plain, sealContext(fullKey, schema))
	if err != nil {
		return nil, fmt.Errorf("seal record: %w", err)
	}
	out := binary.AppendUvarint(make([]byte, 0, len(ct)+2), uint64(schema))
	return append(out, ct...), nil
}

var errDamaged = errors.New("the record does not open: damaged, moved, or sealed under a lost key")

func (s *sealer) open(fullKey string, sealed []byte) (schema int, plain []byte, err error) {
	v, n := binary.Uvarint(sealed)
	if n <= 0 || v > 1<<20 {
		return 0, nil, errDamaged
	}
	plain, err = s.ring.Load().aead.Decrypt(sealed[n:], sealContext(fullKey, int(v)))
	if err != nil {
		return 0, nil, errDamaged
	}
	return int(v), plain, nil
}

// stale reports whether the value is sealed under another than the primary
// data key, and so waits to be rewritten.
func (s *sealer) stale(sealed []byte) bool {
	_, n := binary.Uvarint(sealed)
	if n <= 0 || len(sealed) < n+5 {
		return false // damaged: rewriting cannot help
	}
	return binary.BigEndian.Uint32(sealed[n+1:n+5]) != s.ring.Load().primary
}
