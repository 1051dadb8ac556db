package store

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Tx is a transaction. It sees all tables at one revision, plus its own
// writes where a method says so. Not safe for concurrent use, and dead once
// its function returned.
type Tx struct {
	s         *Store
	ctx       context.Context
	st        *state
	ring      *keyring // seals what is put; the commit fails if it is not the stored one
	write     bool
	compacted bool // etcd has forgotten what the transaction looks at

	// What must not have changed since st when it commits.
	reads  map[string]int64    // full key -> modification revision seen, 0 for none
	spans  map[span]struct{}   // listed
	guards map[string]struct{} // tables listed

	writes map[string][]byte   // by full key: sealed value, nil to delete
	order  []string            // full keys in the order first written
	wipes  []string            // full prefixes deleted whole; none covers another
	bumps  map[string]struct{} // tables whose guard changes
}

// span is a range of full keys, without its end.
type span struct{ from, end string }

// View runs fn on the state as it is now. fn may run again if it read Disk
// tables for so long that etcd forgot the state: it must begin its results
// anew each time.
func (s *Store) View(ctx context.Context, fn func(tx *Tx) error) error {
	for range maxRewinds {
		st, err := s.now(ctx)
		if err != nil {
			return err
		}
		tx := &Tx{s: s, ctx: ctx, st: st}
		if err = fn(tx); !tx.compacted {
			return err
		}
	}
	return unavailable(rpctypes.ErrCompacted)
}

// Update runs fn and commits what it wrote, if nothing that it read has
// changed meanwhile; otherwise it runs fn again, until ctx ends. fn must
// have no other effects. Nothing is written if fn returns an error, and that
// error is returned as it is. When Update returns nil, the writes are on disk
// and every later read of this store sees them. An error after the commit was
// sent (kind Unavailable) leaves open whether it happened.
//
// A transaction may write some thousand records. With an external etcd it may
// read or list no more than etcd's --max-txn-ops, 128 by default.
//
// Before Run, Update waits for it with its writes done; after Run, it refuses.
func (s *Store) Update(ctx context.Context, fn func(tx *Tx) error) error {
	rewinds := 0
	for attempt := 0; ; attempt++ {
		select {
		case <-s.ended:
			return unavailable(errEnded)
		default:
		}
		st, err := s.now(ctx)
		if err != nil {
			return err
		}
		tx := &Tx{s: s, ctx: ctx, st: st, ring: s.keys.ring.Load(), write: true}
		err = fn(tx)
		if tx.compacted {
			if rewinds++; rewinds > maxRewinds {
				return unavailable(rpctypes.ErrCompacted)
			}
			continue
		}
		if err != nil || len(tx.writes) == 0 && len(tx.wipes) == 0 {
			return err
		}
		res, err := tx.commit()
		if err != nil {
			return err
		}
		if err := s.reach(ctx, res.rev); err != nil || res.ok {
			return err
		}
		if err := s.checkPrimary(res.primary); err != nil {
			return err
		}
		if err := wait(ctx, jitter(attempt)); err != nil {
			return unavailable(err)
		}
	}
}

// outcome says whether a transaction committed. If not, rev is a revision at
// which the reason can be seen, and primary what etcd had as ~primary.
type outcome struct {
	ok      bool
	rev     int64
	primary []*mvccpb.KeyValue
}

// commit sends the transaction.
func (tx *Tx) commit() (outcome, error) {
	prefix := tx.s.prefix
	// The data key under which we sealed must still be the primary one. So
	// from the moment that a new one is stored, no commit of any server brings
	// another record under the old one.
	cmps := []clientv3.Cmp{clientv3.Compare(clientv3.Value(prefix+primaryKey), "=", keyID(tx.ring.primary))}
	for key, mod := range tx.reads {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(key), "=", mod))
	}
	for sp := range tx.spans {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(sp.from), "<", tx.st.rev+1).WithRange(sp.end))
	}
	ops := []clientv3.Op{clientv3.OpPut(prefix+clockKey, "")}
	for table := range tx.guards {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(prefix+guardKey+table), "<", tx.st.rev+1))
	}
	for table := range tx.bumps {
		ops = append(ops, clientv3.OpPut(prefix+guardKey+table, ""))
	}
	for _, wiped := range tx.wipes {
		ops = append(ops, clientv3.OpDelete(wiped, clientv3.WithPrefix()))
	}
	for _, key := range tx.order {
		if sealed, ok := tx.writes[key]; !ok {
			continue // taken back by a DeletePrefix
		} else if sealed == nil {
			ops = append(ops, clientv3.OpDelete(key))
		} else {
			ops = append(ops, clientv3.OpPut(key, string(sealed)))
		}
	}
	if tx.s.shared {
		ops = nest(len(cmps), ops)
	}
	done, err := tx.s.client.Txn(tx.ctx).If(cmps...).Then(ops...).Else(
		clientv3.OpGet(prefix+clockKey, clientv3.WithKeysOnly()), clientv3.OpGet(prefix+primaryKey),
	).Commit()
	if err != nil {
		return outcome{}, tx.s.refused(err)
	}
	if done.Succeeded {
		return outcome{ok: true, rev: done.Header.Revision}, nil
	}
	var res outcome
	if kvs := done.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		res.rev = kvs[0].ModRevision
	}
	res.primary = done.Responses[1].GetResponseRange().Kvs
	return res, nil
}

// nest packs operations into transactions within the transaction, where there
// are more than an etcd with default settings takes. It takes 128 comparisons
// or operations on one level, and 128 on all levels above one another.
func nest(cmps int, ops []clientv3.Op) []clientv3.Op {
	const most = 128
	outer := max(cmps, most/2)
	if len(ops) <= most || outer >= most {
		return ops
	}
	var packs []clientv3.Op
	for inner := most - outer; len(ops) > 0; {
		n := min(inner, len(ops))
		packs = append(packs, clientv3.OpTxn(nil, ops[:n], nil))
		ops = ops[n:]
	}
	return packs
}

// saw notes that the transaction depends on a record as it is.
func (tx *Tx) saw(full string, mod int64) {
	if !tx.write {
		return
	}
	if tx.reads == nil {
		tx.reads = map[string]int64{}
	}
	tx.reads[full] = mod
}

// listed notes that the transaction depends on a table's guard.
func (tx *Tx) listed(table string) {
	if !tx.write {
		return
	}
	if tx.guards == nil {
		tx.guards = map[string]struct{}{}
	}
	tx.guards[table] = struct{}{}
}

// bump notes that the transaction changes a table's guard.
func (tx *Tx) bump(table string) {
	if tx.bumps == nil {
		tx.bumps = map[string]struct{}{}
	}
	tx.bumps[table] = struct{}{}
}

// wiped reports whether the transaction has deleted the key by its prefix.
func (tx *Tx) wiped(full string) bool {
	for _, prefix := range tx.wipes {
		if strings.HasPrefix(full, prefix) {
			return true
		}
	}
	return false
}

func (tx *Tx) set(full string, sealed []byte) {
	if !tx.write {
		panic("store: write in a View")
	}
	if tx.writes == nil {
		tx.writes = map[string][]byte{}
	}
	if _, again := tx.writes[full]; !again {
		tx.order = append(tx.order, full)
	}
	tx.writes[full] = sealed
}

// rewind notes an error that means that the transaction looks at a state
// which etcd has forgotten.
func (tx *Tx) rewind(err error) {
	if errors.Is(err, rpctypes.ErrCompacted) {
		tx.compacted = true
	}
}
