package store

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// compactAfter is how many bytes of writes an embedded etcd may keep the
// history of before its clock-driven compaction is due: a burst of writes
// must not fill the store with what nobody reads any more.
const compactAfter = 1 << 30

// kickUpkeep asks upkeep to look whether there is something to do.
func (s *Store) kickUpkeep() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// upkeep does what goes on beside the following of etcd, above all rotations
// that this process, another one or one before it has begun.
func (s *Store) upkeep(ctx context.Context) {
	const first, last = 100 * time.Millisecond, 10 * time.Second
	for pause := first; ctx.Err() == nil; {
		if err := s.tidy(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("store upkeep will be tried again", "error", err)
			if wait(ctx, pause) != nil {
				return
			}
			pause = min(2*pause, last)
			continue
		}
		pause = first
		select {
		case <-s.kick:
		case <-ctx.Done():
		}
	}
}

// inspect opens all records of the Sealed tables, so that damaged ones are
// named before somebody misses them. It takes a small part of one processor.
func (s *Store) inspect(ctx context.Context) {
	const step, pause = 100, 5 * time.Millisecond
	st, opened := s.state.Load(), 0
	for _, def := range s.defs {
		if def.mode != Sealed {
			continue
		}
		st.tables[def.n].records.Ascend(func(it item) bool {
			if _, err := def.decode(s.prefix+def.name+"/"+it.key, it.sealed); err != nil {
				s.damage.note(def, it.key, it.rev, err)
			}
			opened++
			return opened%step != 0 || wait(ctx, pause) == nil
		})
	}
}

// tidy finishes what there is to finish.
func (s *Store) tidy(ctx context.Context) error {
	if s.keys.missed.Load() {
		return s.seekKeyring(ctx)
	}
	if kek, ok := s.keys.currentKEK().(*FileKEK); ok && kek.size() > 1 {
		if err := s.rotateFileKEK(ctx, kek, false); err != nil {
			return err
		}
	}
	if len(s.keys.ring.Load().ids) > 1 {
		if err := s.reseal(ctx, 2*time.Millisecond); err != nil {
			if _, waits := err.(*LeftoverError); !waits {
				return err
			}
			s.log.Warn("old data keys stay", "error", err)
		}
	}
	if s.defrag == nil {
		return nil // an external etcd is compacted by those who run it
	}
	if s.full.Swap(false) {
		return s.makeRoom(ctx)
	}
	if s.written.Load() > compactAfter {
		return s.compact(ctx)
	}
	return nil
}

// seekKeyring tries again to open a keyring that did not open when it came.
// Then all is listed anew: what came after it may have been taken for damaged.
func (s *Store) seekKeyring(ctx context.Context) error {
	got, err := s.client.Get(ctx, s.prefix+keyringKey)
	if err != nil {
		return unavailable(err)
	}
	if len(got.Kvs) == 0 {
		return errNoKeyring
	}
	if _, err := s.keys.unwrap(got.Kvs[0].Value); err != nil {
		return err
	}
	s.keys.missed.Store(false)
	s.listAgain()
	return nil
}

// compact lets etcd forget what was before the present state.
func (s *Store) compact(ctx context.Context, opts ...clientv3.CompactOption) error {
	s.written.Store(0)
	_, err := s.client.Compact(ctx, s.state.Load().rev, opts...)
	if errors.Is(err, rpctypes.ErrCompacted) {
		return nil
	}
	return err
}

// makeRoom gives back what history and deleted records have taken of a
// database at its limit, and lets etcd take writes again, of which deletions
// are some. While it copies the database, etcd stands still.
func (s *Store) makeRoom(ctx context.Context) error {
	if err := s.compact(ctx, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	if err := s.defrag(); err != nil {
		return err
	}
	status, err := s.client.Status(ctx, "")
	if err != nil {
		return err
	}
	if status.DbSize >= status.DbSizeQuota {
		s.log.Error("the store is full: move vaults to another store, or allow it more space", "bytes", status.DbSize, "limit", status.DbSizeQuota)
		return nil
	}
	s.log.Warn("the store was full, room has been made", "bytes", status.DbSize, "limit", status.DbSizeQuota)
	_, err = s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	return err
}
