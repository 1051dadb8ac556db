package store

import (
	"context"

	"github.com/tink-crypto/tink-go/v2/tink"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Client returns the store's etcd client, for looking behind its back.
func (s *Store) Client() *clientv3.Client { return s.client }

// WrapKV puts something between the store and etcd.
func (s *Store) WrapKV(wrap func(clientv3.KV) clientv3.KV) { s.client.KV = wrap(s.client.KV) }

// WrapWatcher puts something between the store and etcd's watch.
func (s *Store) WrapWatcher(wrap func(clientv3.Watcher) clientv3.Watcher) {
	s.client.Watcher = wrap(s.client.Watcher)
}

// Waiters returns how many readers wait for a newer state.
func (s *Store) Waiters() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiters)
}

// The steps of a rotation of a file KEK, to stop between them.

func (s *Store) BeginKEK() (*FileKEK, error) {
	both, err := s.keys.currentKEK().(*FileKEK).withNewPrimary()
	if err != nil {
		return nil, err
	}
	return both, both.write()
}

func (s *Store) RewrapKEK(ctx context.Context, kek KEK) error { return s.rewrap(ctx, kek, false) }

func (k *FileKEK) Size() int { return k.size() }

// ForgetKeys drops the memory of data keys that are not in the keyring, as a
// restart does.
func (s *Store) ForgetKeys() {
	ring := *s.keys.ring.Load()
	ring.prev = nil
	s.keys.ring.Store(&ring)
}

// SealFor seals a plain text as a record, under the primary key.
func (s *Store) SealFor(prefix, key string, schema int, plain []byte) ([]byte, error) {
	return s.keys.ring.Load().seal(prefix, key, schema, plain)
}

// NewKEK makes a KEK of something else than a file.
func NewKEK(a tink.AEAD, id string) KEK { return namedKEK{a, id} }

type namedKEK struct {
	tink.AEAD
	id string
}

func (k namedKEK) ID() string { return k.id }

// SetRevision makes the state pretend to be of another revision.
func (s *Store) SetRevision(rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.show(&state{rev: rev, tables: s.state.Load().tables})
}

// Revision returns the revision of the state.
func (s *Store) Revision() int64 { return s.state.Load().rev }

// SetWritten makes the store believe that so many bytes were written since
// the last compaction.
func (s *Store) SetWritten(n int64) { s.written.Store(n) }
