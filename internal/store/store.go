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
//   - a value is sealed under the current data key and bound to its key and
//     schema version; a record that does not open is named and the rest is
//     served;
//   - reads of cached tables come from memory, which follows etcd's watch and
//     holds sealed bytes.
//
// Keys in etcd are "<prefix><table>/<key>". The keys that stand apart from
// the tables begin with "<prefix>~":
//
//	~keyring        the data keys, wrapped by the key-encryption key
//	~primary        id of the data key under which commits must seal
//	~clock          written by every transaction, so that its modification
//	                revision is that of the last write
//	~guard/<table>  written by the transactions that those which list the
//	                table must not miss, see [Table.List]
//
// Life: [Open], then [NewTable] for each table, then [Store.Load], then
// [Store.Run] in a goroutine for as long as the store is used. Update, and
// reads of what another process wrote, wait for Run.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/podkey/podkey/internal/fault"
)

// Options say where the records are and what opens them.
type Options struct {
	Dir      string // directory of the embedded etcd; used if Endpoints is empty
	MaxBytes int64  // size that its database may reach; 8 GiB if zero

	Endpoints   []string      // external etcd, https URLs
	TLS         *tls.Config   // client certificate and roots for Endpoints
	DialTimeout time.Duration // how long Open waits for Endpoints; 5 s if zero

	Prefix string // of all keys; "podkey/" if empty. Nothing else may write under it

	// KEK returns the key-encryption key. fresh is true when the store has no
	// keyring yet, and only then may a new key be made. It is called again
	// when another server has wrapped the keyring under a key that is not at
	// hand. Required.
	KEK func(fresh bool) (KEK, error)

	Log *slog.Logger // required
}

// Store is an open store. Safe for concurrent use.
type Store struct {
	*connection
	shared bool // other processes write too
	prefix string
	log    *slog.Logger
	keys   custody
	damage damageList

	defs   []*tableDef // in the order of NewTable; fixed after Load
	caches []*cache    // of the tables, nil for Disk; only Load and Run touch them
	state  atomic.Pointer[state]
	ask    barrier

	mu      sync.Mutex // guards the changes of state, and waiters
	waiters []*waiter

	ended   chan struct{} // closed when Run returns
	doubt   chan struct{} // a token asks Run to list again
	kick    chan struct{} // a token asks the upkeep to look at the keyring
	written atomic.Int64  // bytes that the watch brought since the last compaction
	full    atomic.Bool   // etcd has refused a write for want of space
}

const (
	defaultPrefix = "podkey/"
	keyringKey    = "~keyring"
	primaryKey    = "~primary"
	clockKey      = "~clock"
	guardKey      = "~guard/"

	// askTimeout bounds a question to etcd that many readers wait for.
	askTimeout = 5 * time.Second
)

// Open connects to etcd (or starts it) and opens the keyring, making both on
// the first start. With a wrong or missing key-encryption key it fails and
// changes nothing.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		prefix: o.Prefix, log: o.Log,
		ended: make(chan struct{}), doubt: make(chan struct{}, 1), kick: make(chan struct{}, 1),
	}
	if s.prefix == "" {
		s.prefix = defaultPrefix
	}
	s.ask.question = s.askClock
	s.damage.log = o.Log
	s.keys.source = o.KEK
	var err error
	if len(o.Endpoints) > 0 {
		s.shared = true
		s.connection, err = dial(ctx, o, s.prefix+clockKey)
	} else {
		s.connection, err = embedded(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	s.stop = sync.OnceFunc(s.stop)
	if err := s.openKeyring(ctx); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// Close disconnects, and stops an embedded etcd. Call it after Run returned.
func (s *Store) Close() { s.stop() }

// Ping asks etcd for something and checks that this store could still write,
// for readiness checks.
func (s *Store) Ping(ctx context.Context) error {
	got, err := s.client.Get(ctx, s.prefix+primaryKey)
	if err != nil {
		return unavailable(err)
	}
	return s.checkPrimary(got.Kvs)
}

// now returns a state that shows every write which was acknowledged before
// the call, by any process. A lone process has that at hand: Update returns
// only when its own caches show the write. Several ask etcd how far it is.
func (s *Store) now(ctx context.Context) (*state, error) {
	st := s.state.Load()
	if st == nil {
		return nil, errors.New("store: read before Load")
	}
	if !s.shared {
		return st, nil
	}
	rev, err := s.ask.do(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	if err := s.reach(ctx, rev); err != nil {
		return nil, err
	}
	return s.state.Load(), nil
}

// askClock asks etcd for the revision of the last write. As it learns that
// nothing of ours has changed between that one and etcd's own revision, which
// others' keys move on too, it lets the state count as being of the latter:
// the former may soon be compacted.
func (s *Store) askClock() (int64, error) {
	before := s.state.Load().rev
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	got, err := s.client.Get(ctx, s.prefix+clockKey, clientv3.WithKeysOnly())
	if err != nil {
		return 0, err
	}
	if got.Header.Revision < before {
		// Revisions never fall, except when etcd was restored from a backup
		// under us. What the caches show is no longer the truth.
		s.listAgain()
		return 0, fmt.Errorf("etcd is at revision %d, behind %d, which was seen before: has it been restored from a backup?", got.Header.Revision, before)
	}
	last := int64(0)
	if len(got.Kvs) == 1 {
		last = got.Kvs[0].ModRevision
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.state.Load(); last <= st.rev && st.rev < got.Header.Revision {
		s.show(&state{rev: got.Header.Revision, tables: st.tables})
	}
	return last, nil
}

// unavailable says that etcd did not answer (in time), or that the caller
// gave up waiting for it.
func unavailable(err error) error {
	return fault.Wrap(err, fault.Unavailable, "ServiceUnavailable", "The store is not available at the moment. Try again.")
}

// refused turns etcd's refusal of a transaction, or its silence, into a fault.
func (s *Store) refused(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrRequestTooLarge), status.Code(err) == codes.ResourceExhausted: // by etcd, or by gRPC before it
		return fault.Wrap(err, fault.TooLarge, "RequestEntityTooLarge", "The object is too large to be stored.")
	case errors.Is(err, rpctypes.ErrNoSpace): // the write that went beyond the limit was done, though
		s.full.Store(true)
		s.kickUpkeep()
		return fault.Wrap(err, fault.Unavailable, "ServiceUnavailable", "The store is full.")
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return fmt.Errorf("the transaction reads or writes more records than etcd allows (--max-txn-ops): %w", err)
	}
	return unavailable(err)
}

// wait sleeps for d, or fails when ctx ends.
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
	top := min(time.Millisecond<<min(attempt, 7), 100*time.Millisecond)
	return top/2 + rand.N(top/2+1)
}
