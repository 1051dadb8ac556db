package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// waiter waits for the state to reach a revision.
type waiter struct {
	rev int64
	ch  chan struct{}
}

// Load reads all cached tables at one revision. Call it once, after every
// NewTable and before Run.
func (s *Store) Load(ctx context.Context) error { return s.list(ctx) }

// Run follows etcd's watch until ctx ends, and then returns nil. A watch that
// breaks or was compacted is replaced by a new listing; until that is done,
// readers see the old state if nothing newer is known to exist, and wait
// otherwise. Run also looks after the keys, see [Store.RotateDataKey]. Call
// it once; afterwards Update refuses.
func (s *Store) Run(ctx context.Context) error {
	defer close(s.ended)
	if s.state.Load() == nil {
		return errors.New("store: Run before Load")
	}
	ctx, cancel := context.WithCancel(ctx)
	var upkeep sync.WaitGroup
	upkeep.Go(func() { s.upkeep(ctx) })
	upkeep.Go(func() { s.inspect(ctx) })
	defer upkeep.Wait()
	defer cancel()
	for {
		err := s.follow(ctx, s.state.Load().rev+1)
		if ctx.Err() != nil {
			return nil
		}
		s.log.Warn("store watch broke, listing again", "error", err)
		for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
			err := s.list(ctx)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return nil
			}
			s.log.Error("store cannot be listed", "error", err)
			if wait(ctx, pause) != nil {
				return nil
			}
		}
	}
}

// list makes new caches from a listing at one revision, and shows them when
// they are complete.
func (s *Store) list(ctx context.Context) error {
	// The keyring comes first, as the records need it. Its answer gives the
	// revision for all the rest.
	got, err := s.client.Get(ctx, s.prefix+keyringKey)
	if err != nil {
		return fmt.Errorf("load store: %w", err)
	}
	if len(got.Kvs) == 0 {
		return errNoKeyring
	}
	s.adoptKeyring(got.Kvs[0].Value, got.Kvs[0].ModRevision)
	rev, old := got.Header.Revision, s.state.Load()
	bytes := pageBytesHere
	if s.shared {
		bytes = pageBytes
	}
	caches := make([]*cache, len(s.defs))
	for i, def := range s.defs {
		if def.mode == Disk {
			continue
		}
		caches[i] = newCache(def)
		err := s.each(ctx, s.prefix+def.name+"/", rev, bytes, func(full string, value []byte, mod int64) error {
			caches[i].apply(full[len(s.prefix)+len(def.name)+1:], full, value, mod, &s.damage)
			return nil
		})
		if err != nil {
			return fmt.Errorf("load store: %w", err)
		}
		if old != nil {
			caches[i].generation = max(caches[i].generation, old.tables[i].generation+1)
		}
		caches[i].dirty = true
	}
	st := &state{rev: rev, tables: takeAll(make([]view, len(s.defs)), caches)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.caches = caches
	s.show(st)
	return nil
}

// How much of a listing is asked for at once. etcd counts all keys beyond a
// page each time, so that many small pages of a large table take it long.
const (
	pageBytes     = 32 << 20
	pageBytesHere = 512 << 20 // of what is going to stay in memory, from an etcd that is in it too
)

// each calls fn for every key with the prefix, in order, as of revision rev;
// 0 means that each page of the listing is as of the moment it is read. A page
// is about so many bytes, going by the one before it.
func (s *Store) each(ctx context.Context, prefix string, rev int64, bytes int, fn func(full string, value []byte, mod int64) error) error {
	const fewest, growth = 1000, 16
	from, end, limit := prefix, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), fewest
	for {
		got, err := s.client.Get(ctx, from, end, clientv3.WithLimit(int64(limit)), clientv3.WithRev(rev))
		if err != nil {
			return err
		}
		size := 1
		for i, kv := range got.Kvs {
			got.Kvs[i] = nil // may be collected, but for what fn keeps
			size += len(kv.Key) + len(kv.Value)
			from = string(kv.Key)
			if err := fn(from, present(kv.Value), kv.ModRevision); err != nil {
				return err
			}
		}
		if !got.More {
			return nil
		}
		from += "\x00"
		limit = min(max(limit*bytes/size, fewest), limit*growth)
	}
}

// present returns a value that is not nil: a key is there even if its value is
// empty, though that is no record.
func present(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// follow applies events from revision next on until the watch breaks.
func (s *Store) follow(ctx context.Context, next int64) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	watch := s.client.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(next))
	for {
		select {
		case resp, ok := <-watch:
			if !ok {
				return errors.New("watch channel closed")
			}
			if err := resp.Err(); err != nil {
				return err
			}
			if n := len(resp.Events); n > 0 {
				// A response holds all events of the revisions it is about, so
				// the state never shows half a transaction.
				s.applyEvents(resp.Events)
				s.advance(resp.Events[n-1].Kv.ModRevision)
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-s.doubt:
			return errors.New("what is in memory may not be the truth")
		}
	}
}

// listAgain asks Run to begin anew.
func (s *Store) listAgain() {
	select {
	case s.doubt <- struct{}{}:
	default:
	}
}

// applyEvents brings the caches up to date. The keyring is taken over in its
// place among the events: what comes after it may be sealed under a key that
// only the new one has.
func (s *Store) applyEvents(events []*clientv3.Event) {
	var size int64
	for _, ev := range events {
		size += int64(len(ev.Kv.Key) + len(ev.Kv.Value))
		full, value := string(ev.Kv.Key), present(ev.Kv.Value)
		if ev.Type == clientv3.EventTypeDelete {
			value = nil
		}
		if full == s.prefix+keyringKey {
			s.adoptKeyring(value, ev.Kv.ModRevision)
			continue
		}
		table, key, ok := strings.Cut(full[len(s.prefix):], "/")
		if !ok {
			continue
		}
		i := slices.IndexFunc(s.defs, func(d *tableDef) bool { return d.name == table })
		if i >= 0 && s.caches[i] != nil {
			s.caches[i].apply(key, full, value, ev.Kv.ModRevision, &s.damage)
		}
	}
	if s.written.Add(size) > compactAfter {
		s.kickUpkeep()
	}
}

// advance shows the caches as the state at revision rev.
func (s *Store) advance(rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.state.Load()
	s.show(&state{rev: max(rev, old.rev), tables: takeAll(old.tables, s.caches)})
}

// show makes st the state and wakes those who waited for it. mu is held.
func (s *Store) show(st *state) {
	s.state.Store(st)
	s.waiters = slices.DeleteFunc(s.waiters, func(w *waiter) bool {
		if w.rev > st.rev {
			return false
		}
		close(w.ch)
		return true
	})
}

// reach waits until the state is at revision rev or later.
func (s *Store) reach(ctx context.Context, rev int64) error {
	if s.state.Load().rev >= rev {
		return nil
	}
	s.mu.Lock()
	if s.state.Load().rev >= rev {
		s.mu.Unlock()
		return nil
	}
	w := &waiter{rev, make(chan struct{})}
	s.waiters = append(s.waiters, w)
	s.mu.Unlock()
	var err error
	select {
	case <-w.ch:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.ended:
		err = errEnded
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiters = slices.DeleteFunc(s.waiters, func(o *waiter) bool { return o == w })
	return unavailable(err)
}

var errEnded = errors.New("the store has stopped following etcd")
