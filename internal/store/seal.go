package store

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// On disk, the value of a record is
//
//	schema version (uvarint) | Tink ciphertext (0x01 | key id, 4 bytes | nonce | AES-256-GCM)
//
// and the ciphertext's associated data is the full key, a zero byte and the
// schema version. So a record copied to another key, or read as another
// version, does not open.

// appendContext appends the associated data to b, which holds the full key.
func appendContext(b []byte, schema int) []byte {
	return binary.AppendUvarint(append(b, 0), uint64(schema))
}

// contextOf returns the associated data of prefix+key, in one allocation.
func contextOf(prefix, key string, schema int) []byte {
	b := make([]byte, 0, len(prefix)+len(key)+1+binary.MaxVarintLen32)
	return appendContext(append(append(b, prefix...), key...), schema)
}

// errDamaged says no more: a cipher has no way to tell the reasons apart.
var errDamaged = errors.New("the record does not open: damaged, moved, or sealed under a lost key")

// maxSchema bounds what is taken for a schema version.
const maxSchema = 1 << 20

// seal encrypts a record's plain text under the primary data key.
func (k *keyring) seal(prefix, key string, schema int, plain []byte) ([]byte, error) {
	ct, err := k.aead.Encrypt(plain, contextOf(prefix, key, schema))
	if err != nil {
		return nil, fmt.Errorf("seal record: %w", err)
	}
	out := binary.AppendUvarint(make([]byte, 0, len(ct)+binary.MaxVarintLen32), uint64(schema))
	return append(out, ct...), nil
}

// open decrypts a sealed record. Keys that have been dropped from the stored
// keyring still open what was read before.
func (k *keyring) open(prefix, key string, sealed []byte) (schema int, plain []byte, err error) {
	v, n := binary.Uvarint(sealed)
	if n <= 0 || v > maxSchema {
		return 0, nil, errDamaged
	}
	context := contextOf(prefix, key, int(v))
	for ; k != nil; k = k.prev {
		if plain, err = k.aead.Decrypt(sealed[n:], context); err == nil {
			return int(v), plain, nil
		}
	}
	return 0, nil, errDamaged
}

// sealedUnder returns the id of the data key that a sealed record names; ok
// is false if it is too short to name one.
func sealedUnder(sealed []byte) (id uint32, ok bool) {
	_, n := binary.Uvarint(sealed)
	if n <= 0 || len(sealed) < n+5 {
		return 0, false
	}
	return binary.BigEndian.Uint32(sealed[n+1:]), true
}
