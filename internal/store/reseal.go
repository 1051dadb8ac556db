package store

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Reseal rewrites all records that are sealed under old data keys, and then
// drops those keys from the keyring. Run does the same by itself after each
// rotation; Reseal is for those who want to wait for it. It needs Run. The
// error is a *LeftoverError if damaged records keep an old key.
func (s *Store) Reseal(ctx context.Context) error { return s.reseal(ctx, 0) }

// stale is a record that waits to be rewritten.
type staleRecord struct {
	full   string
	mod    int64
	sealed []byte // anew
}

// batch limits a transaction of reseal, so that any etcd takes it.
const (
	batchRecords = 60
	batchBytes   = 512 << 10
)

// reseal is Reseal with a pause after each batch. It is safe, with any number
// of servers, for this reason: a commit compares ~primary with the key under
// which it sealed. Once we have seen ring stored, no commit puts a record
// under one of its old keys any more. So one look at every record, however
// long it takes, finds all that are stale; one that has changed by the time
// we rewrite it is not stale any more; and after the look an old key that no
// record was left under has no use. Only readers of the past may still need
// it: they have it in memory, as keyring.prev.
//
// A crash at any point leaves a keyring that opens every record; the next
// start goes on, because the keyring still has old keys.
func (s *Store) reseal(ctx context.Context, pause time.Duration) error {
	s.keys.resealing.Lock()
	defer s.keys.resealing.Unlock()
	for {
		ring := s.keys.ring.Load()
		if len(ring.ids) == 1 {
			return nil
		}
		left, same, err := s.resealUnder(ctx, ring, pause)
		if err != nil {
			return err
		}
		if !same {
			continue // another rotation: look at it once our keyring is new
		}
		next, err := ring.only(func(id uint32) bool { return left[id] != nil })
		if err != nil {
			return err
		}
		if len(next.ids) < len(ring.ids) {
			done, err := s.putKeyring(ctx, ring, next, nil)
			if err != nil {
				return err
			}
			if !done {
				continue
			}
			s.log.Info("old data keys dropped", "primary", keyID(next.primary), "left", len(next.ids)-1)
		}
		if len(left) == 0 {
			return nil
		}
		e := &LeftoverError{}
		for _, names := range left {
			e.Records = append(e.Records, names...)
		}
		return e
	}
}

// resealUnder rewrites what is stale by ring. left has the records that do
// not open, by data key. same is false if ring was replaced meanwhile.
func (s *Store) resealUnder(ctx context.Context, ring *keyring, pause time.Duration) (left map[uint32][]string, same bool, err error) {
	left = map[uint32][]string{}
	var batch []staleRecord
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		defer func() { batch, size = nil, 0 }()
		if err := s.rewrite(ctx, ring, batch); err != nil {
			return err
		}
		return wait(ctx, pause)
	}
	err = s.each(ctx, s.prefix, 0, pageBytes, func(full string, sealed []byte, mod int64) error {
		if full[len(s.prefix)] == '~' || !ring.stale(sealed) {
			return nil
		}
		schema, plain, err := ring.open(full, "", sealed)
		if err != nil {
			id, _ := sealedUnder(sealed)
			left[id] = append(left[id], full[len(s.prefix):])
			return nil
		}
		anew, err := ring.seal(full, "", schema, plain)
		if err != nil {
			return err
		}
		batch, size = append(batch, staleRecord{full, mod, anew}), size+len(anew)
		if len(batch) < batchRecords && size < batchBytes {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err == errReplaced {
		return nil, false, nil
	}
	return left, true, err
}

// rewrite stores a batch, less what has changed meanwhile, which was sealed
// anew by that. It returns errReplaced if ring is not the stored one.
func (s *Store) rewrite(ctx context.Context, ring *keyring, batch []staleRecord) error {
	cmps := []clientv3.Cmp{clientv3.Compare(clientv3.Value(s.prefix+primaryKey), "=", keyID(ring.primary))}
	ops := []clientv3.Op{clientv3.OpPut(s.prefix+clockKey, "")}
	for _, r := range batch {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(r.full), "=", r.mod))
		ops = append(ops, clientv3.OpPut(r.full, string(r.sealed)))
	}
	done, err := s.client.Txn(ctx).If(cmps...).Then(ops...).Else(clientv3.OpGet(s.prefix + keyringKey)).Commit()
	if err != nil {
		return s.refused(err)
	}
	if done.Succeeded {
		return nil
	}
	if err := s.isStored(ctx, ring, done.Responses[0].GetResponseRange().Kvs); err != nil {
		return err
	}
	if len(batch) == 1 {
		return nil
	}
	for i := range batch {
		if err := s.rewrite(ctx, ring, batch[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}
