package store

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Get reads a record, with the transaction's own writes; ok is false if there
// is none. In Update the value is the caller's own to change, and the commit
// fails if another one changes, creates or deletes the record meanwhile. In
// View the value may be shared, see Table.Load.
func (t *Table[T]) Get(tx *Tx, key string) (v T, ok bool, err error) {
	full := t.prefix + key
	if sealed, own := tx.writes[full]; own {
		if sealed == nil {
			return v, false, nil
		}
		v, err = t.open(key, sealed, 0)
		return v, err == nil, err
	}
	if tx.wiped(full) {
		return v, false, nil
	}
	if t.mode == Disk {
		v, mod, ok, err := t.readDisk(tx.ctx, key, tx.st.rev)
		tx.rewind(err)
		if err == nil || errors.As(err, new(*DamagedError)) {
			tx.saw(full, mod)
		}
		return v, ok, err
	}
	it, ok := tx.st.tables[t.n].records.Get(item{key: key})
	if !ok {
		tx.saw(full, 0)
		return v, false, nil
	}
	tx.saw(full, it.rev)
	if !tx.write {
		return t.shared(it)
	}
	v, err = t.open(key, it.sealed, it.rev)
	return v, err == nil, err
}

// Put writes a record, whether or not there was one. To create, Get first:
// the transaction then fails to commit if another one creates it meanwhile.
// It is an error to put what the transaction has deleted by its prefix.
func (t *Table[T]) Put(tx *Tx, key string, v T) error {
	full := t.prefix + key
	if tx.wiped(full) {
		return fmt.Errorf("store: put in table %s after DeletePrefix of the same keys", t.name)
	}
	if !tx.write {
		panic("store: write in a View")
	}
	sealed, err := t.seal(tx.ring, key, v)
	if err != nil {
		return err
	}
	tx.set(full, sealed)
	if len(t.indexes) > 0 {
		tx.bump(t.name)
	}
	return nil
}

// Delete removes a record, if there is one.
func (t *Table[T]) Delete(tx *Tx, key string) {
	full := t.prefix + key
	if tx.wiped(full) {
		return
	}
	tx.set(full, nil)
	tx.bump(t.name)
}

// DeletePrefix removes all records whose key has the prefix, in one step
// however many there are: those that the transaction has put before, and
// those that others have created up to the commit. To keep others from
// creating more afterwards, let them Get a record that the transaction
// changes.
func (t *Table[T]) DeletePrefix(tx *Tx, prefix string) {
	full := t.prefix + prefix
	if !tx.write {
		panic("store: write in a View")
	}
	if tx.wiped(full) {
		return
	}
	maps.DeleteFunc(tx.writes, func(key string, _ []byte) bool { return strings.HasPrefix(key, full) })
	kept := tx.wipes[:0]
	for _, w := range tx.wipes {
		if !strings.HasPrefix(w, full) {
			kept = append(kept, w)
		}
	}
	tx.wipes = append(kept, full)
	tx.bump(t.name)
}

// List returns up to limit records whose key has the prefix and is greater
// than after, in order of key; limit 0 means all. It does not see the
// transaction's own writes. In Update, the commit fails if another one
// creates or changes a record in the listed range meanwhile, or deletes any
// of the table; for a table with indexes, if it changes anything in it. The
// range ends with the prefix or, if limit was reached, with the last record.
func (t *Table[T]) List(tx *Tx, prefix, after string, limit int) (es []Entry[T], err error) {
	if t.mode == Disk {
		es, err = t.scanDisk(tx.ctx, prefix, after, limit, tx.st.rev)
		tx.rewind(err)
	} else {
		es = t.entries(tx.st.tables[t.n].scan(prefix, after, limit), !tx.write)
	}
	if err != nil || !tx.write {
		return es, err
	}
	// etcd can compare the modification revisions of all keys in a range,
	// which shows what was created or changed, but not what has gone: that is
	// what the guard is for. With indexes it shows every change.
	tx.listed(t.name)
	if len(t.indexes) == 0 {
		sp := span{t.prefix + scanFrom(prefix, after), clientv3.GetPrefixRangeEnd(t.prefix + prefix)}
		if limit > 0 && len(es) == limit {
			sp.end = t.prefix + es[limit-1].Key + "\x00"
		}
		if sp.from < sp.end {
			if tx.spans == nil {
				tx.spans = map[span]struct{}{}
			}
			tx.spans[sp] = struct{}{}
		}
	}
	return es, nil
}

// By returns the records of a Plain table under a value of an index, in order
// of key. It does not see the transaction's own writes. In Update, any change
// of the table by another transaction makes the commit fail. It panics on an
// index that the table does not have.
func (t *Table[T]) By(tx *Tx, index, value string) ([]Entry[T], error) {
	tx.listed(t.name)
	var items []item
	tx.st.tables[t.n].find(t.index(index), value, func(it item) { items = append(items, it) })
	return t.entries(items, !tx.write), nil
}
