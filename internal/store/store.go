// Package store keeps every record of the server in etcd, sealed.
//
// There is one implementation: an etcd embedded in the process and an
// external cluster both give the same client, so only [Open] differs. The
// package guarantees that
//
//   - an acknowledged write is on disk, and visible to every later read of
//     this process (and, with an external etcd, of every other one);
//   - a transaction commits only if nothing it read has changed, and is run
//     again otherwise, so conflicts never reach a caller;
//   - a value is sealed under a data key and bound to its key and schema
//     version; a record that does not open is named and the rest is served;
//   - reads of cached tables come from memory, which follows etcd's watch and
//     holds sealed bytes.
//
// Keys in etcd are "<prefix><table>/<key>". Two keys stand apart from the
// tables: "<prefix>~keyring" holds the wrapped data keys, and
// "<prefix>~clock" is written by every transaction, so that its modification
// revision is that of the last write.
//
// Life: [Open], then [NewTable] for each table, then [Store.Load], then
// [Store.Run] in a goroutine for as long as the store is used. Update returns
// only while Run is running.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/google/btree"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Options say where the records are and what opens them.
type Options struct {
	Dir       string      // directory of the embedded etcd; used if Endpoints is empty
	Endpoints []string    // external etcd, https URLs
	TLS       *tls.Config // client certificate and roots for Endpoints
	Prefix    string      // of all keys; "podkey/" if empty

	// KEK returns the key-encryption key. fresh is true when the store has no
	// keyring yet, and only then may a new key be made. Required.
	KEK func(fresh bool) (KEK, error)

	Log *slog.Logger // required
}

// Store is an open store. Safe for concurrent use.
type Store struct {
	client *clientv3.Client
	stop   func()
	shared bool // other processes write too
	prefix string
	log    *slog.Logger
	seal   sealer
	kek    KEK

	mu      sync.RWMutex
	tables  map[string]*cache // by name; fixed after Load
	applied int64             // revision that the caches show
	waiters []waiter
	loaded  bool

	ask barrier
}

type waiter struct {
	rev int64
	ch  chan struct{}
}

const (
	defaultPrefix = "podkey/"
	keyringKey    = "~keyring"
	clockKey      = "~clock"
)

// Open connects to etcd (or starts it) and opens the keyring, making both on
// the first start. With a wrong or missing key-encryption key it fails and
// changes nothing.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{prefix: o.Prefix, log: o.Log, tables: map[string]*cache{}}
	if s.prefix == "" {
		s.prefix = defaultPrefix
	}
	var err error
	if len(o.Endpoints) > 0 {
		s.shared = true
		s.client, s.stop, err = dial(ctx, o)
	} else {
		s.client, s.stop, err = embedded(ctx, o.Dir, o.Log)
	}
	if err != nil {
		return nil, err
	}
	if err := s.openKeyring(ctx, o.KEK); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// Close disconnects, and stops an embedded etcd. Call it after Run returned.
func (s *Store) Close() { s.stop() }

// openKeyring reads the keyring or, in an empty store, creates it. Two
// servers that start at once on an empty etcd agree: the creation is
// conditional, and the loser reads what the winner wrote.
func (s *Store) openKeyring(ctx context.Context, kek func(fresh bool) (KEK, error)) error {
	key := s.prefix + keyringKey
	for {
		got, err := s.client.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("read keyring: %w", err)
		}
		if len(got.Kvs) == 1 {
			if s.kek, err = kek(false); err != nil {
				return err
			}
			ring, err := unwrapKeyring(got.Kvs[0].Value, s.kek)
			if err != nil {
				return err
			}
			s.seal.ring.Store(ring)
			return nil
		}
		any, err := s.client.Get(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly())
		if err != nil {
			return fmt.Errorf("read keyring: %w", err)
		}
		if len(any.Kvs) > 0 {
			return errors.New("the store has records but no keyring: it has been lost or removed, and nothing can be opened; restore a backup")
		}
		if s.kek, err = kek(true); err != nil {
			return err
		}
		ring, err := generateKeyring()
		if err != nil {
			return err
		}
		wrapped, err := ring.wrap(s.kek)
		if err != nil {
			return err
		}
		done, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, string(wrapped))).Commit()
		if err != nil {
			return fmt.Errorf("create keyring: %w", err)
		}
		if done.Succeeded {
			s.seal.ring.Store(ring)
			return nil
		}
	}
}

// Load reads all cached tables at one revision. Call it once, after every
// NewTable and before Run.
func (s *Store) Load(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reload(ctx)
}

// reload replaces all caches by a listing at one revision. mu is held: a
// reader must not see half of it.
func (s *Store) reload(ctx context.Context) error {
	for _, c := range s.tables {
		c.reset()
	}
	const page = 2000
	rev, from := int64(0), s.prefix
	end := clientv3.GetPrefixRangeEnd(s.prefix)
	for {
		got, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(rev))
		if err != nil {
			return fmt.Errorf("load store: %w", err)
		}
		if rev == 0 {
			rev = got.Header.Revision
		}
		for _, kv := range got.Kvs {
			s.apply(string(kv.Key), kv.Value, kv.ModRevision)
		}
		if !got.More {
			break
		}
		from = string(got.Kvs[len(got.Kvs)-1].Key) + "\x00"
	}
	s.applied, s.loaded = rev, true
	return nil
}

// apply puts one key's new value into its table's cache; a nil value deletes.
func (s *Store) apply(fullKey string, value []byte, rev int64) {
	table, key, ok := strings.Cut(fullKey[len(s.prefix):], "/")
	if !ok {
		return
	}
	if c := s.tables[table]; c != nil {
		c.apply(key, fullKey, value, rev)
	}
}

// Run follows etcd's watch until ctx ends, and then returns nil. A watch that
// breaks or was compacted is replaced by a new listing.
func (s *Store) Run(ctx context.Context) error {
	for {
		s.mu.RLock()
		next := s.applied + 1
		s.mu.RUnlock()
		err := s.follow(ctx, next)
		if ctx.Err() != nil {
			return nil
		}
		s.log.Warn("store watch broke, listing again", "error", err)
		if err := s.relist(ctx); err != nil {
			return nil
		}
	}
}

// relist loads again, with growing pauses, until it works; it fails only when
// ctx ends.
func (s *Store) relist(ctx context.Context) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		s.mu.Lock()
		err := s.reload(ctx)
		if err == nil {
			s.wake()
		}
		s.mu.Unlock()
		if err == nil {
			return nil
		}
		s.log.Error("store cannot be listed", "error", err)
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// follow applies events from revision next on until the watch breaks.
func (s *Store) follow(ctx context.Context, next int64) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range s.client.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(next)) {
		if err := resp.Err(); err != nil {
			return err
		}
		s.mu.Lock()
		var ring []byte
		for _, ev := range resp.Events {
			key := string(ev.Kv.Key)
			switch {
			case ev.Type == clientv3.EventTypeDelete:
				s.apply(key, nil, ev.Kv.ModRevision)
			case key == s.prefix+keyringKey:
				ring = ev.Kv.Value
			default:
				s.apply(key, ev.Kv.Value, ev.Kv.ModRevision)
			}
		}
		if n := len(resp.Events); n > 0 {
			s.applied = max(s.applied, resp.Events[n-1].Kv.ModRevision)
		}
		s.wake()
		s.mu.Unlock()
		if ring != nil {
			s.adoptKeyring(ring)
		}
	}
	return errors.New("watch channel closed")
}

// adoptKeyring takes over a keyring that another process, or this one, wrote.
// If our key-encryption key does not open it, the old one stays in use and
// the log says what to do.
func (s *Store) adoptKeyring(stored []byte) {
	ring, err := unwrapKeyring(stored, s.kek)
	if err != nil {
		s.log.Error("the keyring was changed and does not open here: restart with the new key-encryption key", "error", err)
		return
	}
	s.seal.ring.Store(ring)
}

// wake releases the waiters whose revision has been reached. mu is held.
func (s *Store) wake() {
	kept := s.waiters[:0]
	for _, w := range s.waiters {
		if w.rev <= s.applied {
			close(w.ch)
		} else {
			kept = append(kept, w)
		}
	}
	clear(s.waiters[len(kept):])
	s.waiters = kept
}

// reach waits until the caches show revision rev.
func (s *Store) reach(ctx context.Context, rev int64) error {
	s.mu.RLock()
	there := s.applied >= rev
	s.mu.RUnlock()
	if there {
		return nil
	}
	s.mu.Lock()
	if s.applied >= rev {
		s.mu.Unlock()
		return nil
	}
	ch := make(chan struct{})
	s.waiters = append(s.waiters, waiter{rev, ch})
	s.mu.Unlock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
}

// current makes sure that a read which starts now sees every write that was
// acknowledged before, by any process. A lone process has that already:
// Update returns only when its own cache shows the write.
func (s *Store) current(ctx context.Context) error {
	if !s.shared {
		return nil
	}
	rev, err := s.ask.do(ctx, func(ctx context.Context) (int64, error) {
		got, err := s.client.Get(ctx, s.prefix+clockKey, clientv3.WithKeysOnly())
		if err != nil {
			return 0, err
		}
		if len(got.Kvs) == 0 {
			return 0, nil
		}
		return got.Kvs[0].ModRevision, nil
	})
	if err != nil {
		return unavailable(err)
	}
	return s.reach(ctx, rev)
}

// Ping asks etcd for something, for readiness checks.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.client.Get(ctx, s.prefix+clockKey, clientv3.WithKeysOnly())
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// jitter returns a pause that grows with attempt, from 1 ms to 100 ms.
func jitter(attempt int) time.Duration {
	top := time.Millisecond << min(attempt, 7)
	return min(top, 100*time.Millisecond)/2 + rand.N(min(top, 100*time.Millisecond)/2+1)
}

// newTree returns an ordered map of cache items; its Clone is a snapshot.
func newTree() *btree.BTreeG[*item] {
	return btree.NewG(32, func(a, b *item) bool { return a.key < b.key })
}
