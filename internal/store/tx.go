package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/podkey/podkey/internal/fault"
)

// Tx is a transaction. It sees all tables at one revision, plus its own
// writes. Not safe for concurrent use, and dead once its function returned.
type Tx struct {
	s      *Store
	ctx    context.Context
	rev    int64
	write  bool
	tables map[string]*cache // snapshots

	reads  map[string]int64    // full key -> modification revision seen, 0 for none
	ranges map[string]struct{} // full prefixes listed
	writes map[string]*change  // by full key
	order  []string            // full keys in the order first written
	wipes  []string            // full prefixes deleted whole
}

// change is a pending write; sealed is nil for a deletion.
type change struct {
	sealed []byte
}

// View runs fn on the state as it is now.
func (s *Store) View(ctx context.Context, fn func(tx *Tx) error) error {
	if err := s.current(ctx); err != nil {
		return err
	}
	return fn(s.begin(ctx, false))
}

// Update runs fn and commits what it wrote, if nothing that it read has
// changed meanwhile; otherwise it runs fn again, until ctx ends. fn must
// have no other effects. Nothing is written if fn returns an error, and that
// error is returned as it is. When Update returns nil, the writes are on disk
// and every later read of this store sees them. An error after the commit was
// sent (kind Unavailable) leaves open whether it happened.
func (s *Store) Update(ctx context.Context, fn func(tx *Tx) error) error {
	if err := s.current(ctx); err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		tx := s.begin(ctx, true)
		if err := fn(tx); err != nil {
			return err
		}
		if len(tx.writes) == 0 && len(tx.wipes) == 0 {
			return nil
		}
		ok, rev, err := tx.commit()
		if err != nil {
			return err
		}
		if err := s.reach(ctx, rev); err != nil {
			return err
		}
		if ok {
			return nil
		}
		if err := wait(ctx, jitter(attempt)); err != nil {
			return unavailable(err)
		}
	}
}

func (s *Store) begin(ctx context.Context, write bool) *Tx {
	tx := &Tx{s: s, ctx: ctx, write: write}
	if write {
		tx.reads, tx.ranges, tx.writes = map[string]int64{}, map[string]struct{}{}, map[string]*change{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	tx.rev = s.applied
	tx.tables = make(map[string]*cache, len(s.tables))
	for name, c := range s.tables {
		tx.tables[name] = c.snapshot()
	}
	return tx
}

// commit sends the transaction. ok is false if something read has changed;
// rev is then a revision at which the change is visible.
func (tx *Tx) commit() (ok bool, rev int64, err error) {
	var cmps []clientv3.Cmp
	for key, mod := range tx.reads {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(key), "=", mod))
	}
	for prefix := range tx.ranges {
		// No key under the prefix was created or changed since. A deletion goes
		// unseen: no rule of ours is broken by a listed record that has gone.
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(prefix).WithPrefix(), "<", tx.rev+1))
	}
	ops := []clientv3.Op{clientv3.OpPut(tx.s.prefix+clockKey, "")}
	for _, prefix := range tx.wipes {
		ops = append(ops, clientv3.OpDelete(prefix, clientv3.WithPrefix()))
	}
	for _, key := range tx.order {
		if w := tx.writes[key]; w.sealed == nil {
			ops = append(ops, clientv3.OpDelete(key))
		} else {
			ops = append(ops, clientv3.OpPut(key, string(w.sealed)))
		}
	}
	done, err := tx.s.client.Txn(tx.ctx).If(cmps...).Then(ops...).Else(clientv3.OpGet(tx.s.prefix+clockKey, clientv3.WithKeysOnly())).Commit()
	if err != nil {
		return false, 0, unavailable(err)
	}
	if done.Succeeded {
		return true, done.Header.Revision, nil
	}
	if kvs := done.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		rev = kvs[0].ModRevision
	}
	return false, rev, nil
}

// Get reads a record; ok is false if there is none. In Update the value is
// the caller's own to change; in View it may be shared, see Table.Load.
func (t *Table[T]) Get(tx *Tx, key string) (v T, ok bool, err error) {
	full := t.fullKey(key)
	if w := tx.writes[full]; w != nil {
		if w.sealed == nil {
			return v, false, nil
		}
		v, err = t.open(full, w.sealed)
		return v, err == nil, err
	}
	if t.cache == nil {
		v, mod, ok, err := t.readDisk(tx.ctx, key, tx.rev)
		if tx.write && (err == nil || errors.As(err, new(*DamagedError))) {
			tx.reads[full] = mod
		}
		return v, ok, err
	}
	it, ok := tx.tables[t.name].tree.Get(&item{key: key})
	if tx.write {
		tx.reads[full] = 0
		if ok {
			tx.reads[full] = it.rev
		}
	}
	if !ok {
		return v, false, nil
	}
	if !tx.write {
		return t.shared(it)
	}
	v, err = t.open(full, it.sealed)
	return v, err == nil, err
}

// Put writes a record, whether or not there was one. To create, Get first:
// the transaction then fails to commit if another one creates it meanwhile.
func (t *Table[T]) Put(tx *Tx, key string, v T) error {
	plain, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", t.name, err)
	}
	full := t.fullKey(key)
	sealed, err := t.s.seal.seal(full, t.schema, plain)
	if err != nil {
		return err
	}
	tx.set(full, sealed)
	return nil
}

// Delete removes a record, if there is one.
func (t *Table[T]) Delete(tx *Tx, key string) {
	tx.set(t.fullKey(key), nil)
}

// DeletePrefix removes all records whose key has the prefix, in one step
// however many there are. It must not overlap other writes of the
// transaction.
func (t *Table[T]) DeletePrefix(tx *Tx, prefix string) {
	tx.wipes = append(tx.wipes, t.fullKey(prefix))
}

func (tx *Tx) set(full string, sealed []byte) {
	if !tx.write {
		panic("store: write in a View")
	}
	if tx.writes[full] == nil {
		tx.order = append(tx.order, full)
	}
	tx.writes[full] = &change{sealed}
}

// List returns up to limit records whose key has the prefix and is greater
// than after, in order of key; limit 0 means all. It does not see the
// transaction's own writes. In Update, the commit fails if another one
// creates or changes a record under the prefix meanwhile.
func (t *Table[T]) List(tx *Tx, prefix, after string, limit int) ([]Entry[T], error) {
	if tx.write {
		tx.ranges[t.fullKey(prefix)] = struct{}{}
	}
	if t.cache == nil {
		return t.scanDisk(tx.ctx, prefix, after, limit, tx.rev)
	}
	return t.entries(scan(tx.tables[t.name].tree, prefix, after, limit), !tx.write), nil
}

// By returns the records of a Plain table under a value of an index, in order
// of key. It does not see the transaction's own writes. In Update, any change
// of the table by another transaction makes the commit fail.
func (t *Table[T]) By(tx *Tx, index, value string) ([]Entry[T], error) {
	if tx.write {
		tx.ranges[t.fullKey("")] = struct{}{}
	}
	return t.entries(tx.tables[t.name].find(index, value), !tx.write), nil
}

// unavailable says that etcd did not answer (in time), or that the caller
// gave up waiting for it.
func unavailable(err error) error {
	return fault.Wrap(err, fault.Unavailable, "ServiceUnavailable", "The store is not available at the moment. Try again.")
}
