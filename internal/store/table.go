package store

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/btree"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Mode says how a table's records are held in memory.
type Mode uint8

const (
	// Sealed tables hold sealed bytes and open them on use: for records with
	// secrets in them.
	Sealed Mode = iota
	// Plain tables hold records opened as well: for small records without
	// secrets that hot paths read. Only they can have indexes.
	Plain
	// Disk tables are not held at all: reads go to etcd.
	Disk
)

// TableOptions describe a table.
type TableOptions[T any] struct {
	Mode   Mode
	Schema int // version of T's stored form, from 1; 1 if zero

	// Indexes map a name to a function that returns the values under which a
	// record is found. Only for Plain tables.
	Indexes map[string]func(*T) []string
}

// Table is one kind of record, stored as JSON. Its methods that take a [Tx]
// belong to a transaction; Load and Find read the present state.
type Table[T any] struct {
	s      *Store
	name   string
	schema int
	cache  *cache // nil for Disk
}

// NewTable declares a table. All tables must be declared before Store.Load.
// It panics on a name that is taken or malformed: our own mistake.
func NewTable[T any](s *Store, name string, o TableOptions[T]) *Table[T] {
	if s.loaded || s.tables[name] != nil || name == "" || strings.ContainsAny(name, "/~") {
		panic("store: bad table " + name)
	}
	t := &Table[T]{s: s, name: name, schema: max(o.Schema, 1)}
	if o.Mode == Disk {
		return t
	}
	t.cache = newCache(name)
	if o.Mode == Plain {
		t.cache.decode = func(fullKey string, sealed []byte) (any, error) {
			v, err := t.open(fullKey, sealed)
			if err != nil {
				return nil, err
			}
			return &v, nil
		}
		t.cache.log = s.log
		for name, values := range o.Indexes {
			t.cache.indexes[name] = &index{tree: newIndex(), values: func(v any) []string { return values(v.(*T)) }}
		}
	}
	s.tables[name] = t.cache
	return t
}

// Key joins the parts of a key; a slash inside a part is escaped, so that
// keys of different parts never meet. Key(a)+"/" is the prefix of all keys
// whose first part is a.
func Key(parts ...string) string {
	for i, p := range parts {
		if strings.ContainsAny(p, "/%") {
			parts[i] = url.PathEscape(p)
		}
	}
	return strings.Join(parts, "/")
}

// Entry is one record of a listing. Err is set, and Value is not, if the
// record is damaged.
type Entry[T any] struct {
	Key   string
	Value T
	Err   error
}

// DamagedError names a record that is there but does not open.
type DamagedError struct {
	Table, Key string
	Err        error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("record %s of table %s: %v", e.Key, e.Table, e.Err)
}

// Unwrap returns the cause.
func (e *DamagedError) Unwrap() error { return e.Err }

// SchemaError says that a record was written by a newer program.
type SchemaError struct{ Have, Know int }

func (e *SchemaError) Error() string {
	return fmt.Sprintf("written in version %d, this program reads up to %d: upgrade it", e.Have, e.Know)
}

func (t *Table[T]) fullKey(key string) string { return t.s.prefix + t.name + "/" + key }

// open unseals and decodes a stored value.
func (t *Table[T]) open(fullKey string, sealed []byte) (v T, err error) {
	damaged := func(err error) error {
		return &DamagedError{t.name, strings.TrimPrefix(fullKey, t.fullKey("")), err}
	}
	schema, plain, err := t.s.seal.open(fullKey, sealed)
	if err != nil {
		return v, damaged(err)
	}
	if schema > t.schema {
		return v, damaged(&SchemaError{schema, t.schema})
	}
	if err := json.Unmarshal(plain, &v); err != nil {
		return v, damaged(err)
	}
	return v, nil
}

// Load reads one record as it is now. ok is false if there is none. Records
// of Plain tables are shared: the caller must not change what the value
// refers to.
func (t *Table[T]) Load(ctx context.Context, key string) (v T, ok bool, err error) {
	if t.cache == nil {
		return t.loadDisk(ctx, key, 0)
	}
	if err := t.s.current(ctx); err != nil {
		return v, false, err
	}
	t.s.mu.RLock()
	it, ok := t.cache.tree.Get(&item{key: key})
	t.s.mu.RUnlock()
	if !ok {
		return v, false, nil
	}
	return t.shared(it)
}

// shared returns an item's value without copying what it refers to.
func (t *Table[T]) shared(it *item) (v T, ok bool, err error) {
	if it.plain != nil {
		return *it.plain.(*T), true, nil
	}
	v, err = t.open(t.fullKey(it.key), it.sealed)
	return v, err == nil, err
}

func (t *Table[T]) loadDisk(ctx context.Context, key string, rev int64) (v T, ok bool, err error) {
	v, _, ok, err = t.readDisk(ctx, key, rev)
	return v, ok, err
}

func (t *Table[T]) readDisk(ctx context.Context, key string, rev int64) (v T, mod int64, ok bool, err error) {
	full := t.fullKey(key)
	got, err := t.s.client.Get(ctx, full, clientv3.WithRev(rev))
	if err != nil {
		return v, 0, false, unavailable(err)
	}
	if len(got.Kvs) == 0 {
		return v, 0, false, nil
	}
	v, err = t.open(full, got.Kvs[0].Value)
	return v, got.Kvs[0].ModRevision, err == nil, err
}

// Find returns the records of a Plain table under a value of an index, as
// they are now, in order of key. They are shared, see Load.
func (t *Table[T]) Find(ctx context.Context, index, value string) ([]T, error) {
	if err := t.s.current(ctx); err != nil {
		return nil, err
	}
	t.s.mu.RLock()
	items := t.cache.find(index, value)
	t.s.mu.RUnlock()
	vs := make([]T, 0, len(items))
	for _, it := range items {
		vs = append(vs, *it.plain.(*T))
	}
	return vs, nil
}

// Generation changes with every change of the table; it lets a caller keep
// what it derived from it. It is 0 for an empty table that never changed.
func (t *Table[T]) Generation(ctx context.Context) (int64, error) {
	if err := t.s.current(ctx); err != nil {
		return 0, err
	}
	t.s.mu.RLock()
	defer t.s.mu.RUnlock()
	return t.cache.generation, nil
}

// Scan returns up to limit records whose key has the prefix and is greater
// than after, in order of key, as they are now; limit 0 means all. Damaged
// records are in the listing with their Err.
func (t *Table[T]) Scan(ctx context.Context, prefix, after string, limit int) ([]Entry[T], error) {
	if t.cache == nil {
		return t.scanDisk(ctx, prefix, after, limit, 0)
	}
	if err := t.s.current(ctx); err != nil {
		return nil, err
	}
	t.s.mu.RLock()
	items := scan(t.cache.tree, prefix, after, limit)
	t.s.mu.RUnlock()
	return t.entries(items, true), nil
}

func (t *Table[T]) entries(items []*item, share bool) []Entry[T] {
	es := make([]Entry[T], len(items))
	for i, it := range items {
		es[i].Key = it.key
		if share {
			es[i].Value, _, es[i].Err = t.shared(it)
		} else {
			es[i].Value, es[i].Err = t.open(t.fullKey(it.key), it.sealed)
		}
	}
	return es
}

func (t *Table[T]) scanDisk(ctx context.Context, prefix, after string, limit int, rev int64) ([]Entry[T], error) {
	from := t.fullKey(prefix)
	if after >= prefix && after != "" {
		from = t.fullKey(after) + "\x00"
	}
	end := clientv3.GetPrefixRangeEnd(t.fullKey(prefix))
	got, err := t.s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(int64(limit)), clientv3.WithRev(rev))
	if err != nil {
		return nil, unavailable(err)
	}
	es := make([]Entry[T], len(got.Kvs))
	for i, kv := range got.Kvs {
		es[i].Key = strings.TrimPrefix(string(kv.Key), t.fullKey(""))
		es[i].Value, es[i].Err = t.open(string(kv.Key), kv.Value)
	}
	return es, nil
}

func scan(tree *btree.BTreeG[*item], prefix, after string, limit int) []*item {
	var items []*item
	from := prefix
	if after >= prefix && after != "" {
		from = after + "\x00"
	}
	tree.AscendGreaterOrEqual(&item{key: from}, func(it *item) bool {
		if !strings.HasPrefix(it.key, prefix) {
			return false
		}
		items = append(items, it)
		return limit == 0 || len(items) < limit
	})
	return items
}
