package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
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
	// record is found. Only for Plain tables. The function must return the
	// same values for the same record, and may run in the background.
	Indexes map[string]func(*T) []string

	// Marshal and Unmarshal replace JSON as the stored form, for a table that
	// hot paths read. Unmarshal must refuse what Marshal does not write.
	Marshal   func(*T) ([]byte, error)
	Unmarshal func([]byte, *T) error
}

// Table is one kind of record, stored as JSON unless its options say
// otherwise. Its methods that take a [Tx]
// belong to a transaction; Load, Find and Scan read the present state.
type Table[T any] struct {
	s *Store
	*tableDef
	prefix    string // of the table's keys
	marshal   func(*T) ([]byte, error)
	unmarshal func([]byte, *T) error
}

// tableDef is what the store knows of a table, whatever its T.
type tableDef struct {
	n       int // place in Store.defs
	name    string
	mode    Mode
	schema  int
	indexes []indexDef

	// decode opens a stored value and returns it as *T.
	decode func(fullKey string, sealed []byte) (any, error)
}

type indexDef struct {
	name   string
	values func(any) []string
}

// NewTable declares a table. All tables must be declared before Store.Load.
// It panics on a name that is taken or malformed, and on indexes of a table
// that is not Plain: our own mistakes.
func NewTable[T any](s *Store, name string, o TableOptions[T]) *Table[T] {
	taken := slices.ContainsFunc(s.defs, func(d *tableDef) bool { return d.name == name })
	if s.state.Load() != nil || taken || name == "" || strings.ContainsAny(name, "/~") || o.Mode != Plain && len(o.Indexes) > 0 {
		panic("store: bad table " + name)
	}
	t := &Table[T]{s: s, prefix: s.prefix + name + "/", marshal: o.Marshal, unmarshal: o.Unmarshal}
	if t.marshal == nil {
		t.marshal = func(v *T) ([]byte, error) { return json.Marshal(v) }
	}
	if t.unmarshal == nil {
		t.unmarshal = func(b []byte, v *T) error { return json.Unmarshal(b, v) }
	}
	t.tableDef = &tableDef{n: len(s.defs), name: name, mode: o.Mode, schema: max(o.Schema, 1)}
	t.decode = func(fullKey string, sealed []byte) (any, error) {
		v := new(T)
		return v, t.openInto(v, strings.TrimPrefix(fullKey, t.prefix), sealed)
	}
	for name, values := range o.Indexes {
		t.indexes = append(t.indexes, indexDef{name, func(v any) []string { return values(v.(*T)) }})
	}
	s.defs = append(s.defs, t.tableDef)
	return t
}

// index returns the number of an index. It panics if the table does not have
// it: our own mistake.
func (d *tableDef) index(name string) int {
	for i := range d.indexes {
		if d.indexes[i].name == name {
			return i
		}
	}
	panic("store: table " + d.name + " has no index " + name)
}

// Key joins the parts of a key; a slash inside a part is escaped, so that
// keys of different parts never meet. Key(a)+"/" is the prefix of all keys
// whose first part is a.
func Key(parts ...string) string {
	var b strings.Builder
	for i, p := range parts {
		if i > 0 {
			b.WriteByte('/')
		}
		if strings.ContainsAny(p, "/%") {
			p = url.PathEscape(p)
		}
		b.WriteString(p)
	}
	return b.String()
}

// Entry is one record of a listing. Err is set, and Value is not, if the
// record is damaged.
type Entry[T any] struct {
	Key   string
	Value T
	Err   error
}

// Load reads one record as it is now. ok is false if there is none. Records
// of Plain tables are shared: the caller must not change what the value
// refers to. Any state that Load has shown is shown by every later read.
func (t *Table[T]) Load(ctx context.Context, key string) (v T, ok bool, err error) {
	for attempt := 0; ; attempt++ {
		st, err := t.s.now(ctx)
		if err != nil {
			return v, false, err
		}
		if t.mode != Disk {
			it, ok := st.tables[t.n].records.Get(item{key: key})
			if !ok {
				return v, false, nil
			}
			return t.shared(it)
		}
		v, _, ok, err = t.readDisk(ctx, key, st.rev)
		if !errors.Is(err, rpctypes.ErrCompacted) || attempt == maxRewinds {
			return v, ok, err
		}
	}
}

// Find returns the records of a Plain table under a value of an index, as
// they are now, in order of key. They are shared, see Load. Damaged records
// are under no value. It panics on an index that the table does not have.
func (t *Table[T]) Find(ctx context.Context, index, value string) ([]T, error) {
	st, err := t.s.now(ctx)
	if err != nil {
		return nil, err
	}
	vs := make([]T, 0, 4) // there are seldom many
	st.tables[t.n].find(t.index(index), value, func(it item) { vs = append(vs, *it.plain.(*T)) })
	return vs, nil
}

// Generation changes with every change of a cached table; it lets a caller
// keep what it derived from it. It never falls. Disk tables have none.
func (t *Table[T]) Generation(ctx context.Context) (int64, error) {
	st, err := t.s.now(ctx)
	if err != nil {
		return 0, err
	}
	return st.tables[t.n].generation, nil
}

// AnyTable is a [Table] of whatever kind of record.
type AnyTable interface{ place() int }

func (d *tableDef) place() int { return d.n }

// Generation is the sum of [Table.Generation] over several tables, at one
// moment and for the price of one. None falls: so it changes with every change
// of any of them.
func (s *Store) Generation(ctx context.Context, tables ...AnyTable) (sum int64, err error) {
	st, err := s.now(ctx)
	if err != nil {
		return 0, err
	}
	for _, t := range tables {
		sum += st.tables[t.place()].generation
	}
	return sum, nil
}

// Scan returns up to limit records whose key has the prefix and is greater
// than after, in order of key, as they are now; limit 0 means all. Damaged
// records are in the listing with their Err.
func (t *Table[T]) Scan(ctx context.Context, prefix, after string, limit int) ([]Entry[T], error) {
	for attempt := 0; ; attempt++ {
		st, err := t.s.now(ctx)
		if err != nil {
			return nil, err
		}
		if t.mode != Disk {
			return t.entries(st.tables[t.n].scan(prefix, after, limit), true), nil
		}
		es, err := t.scanDisk(ctx, prefix, after, limit, st.rev)
		if !errors.Is(err, rpctypes.ErrCompacted) || attempt == maxRewinds {
			return es, err
		}
	}
}

// shared returns an item's value without copying what it refers to.
func (t *Table[T]) shared(it item) (v T, ok bool, err error) {
	if it.plain != nil {
		return *it.plain.(*T), true, nil
	}
	v, err = t.open(it.key, it.sealed, it.rev)
	return v, err == nil, err
}

// entries opens items; if share is set, the values are not the caller's own.
func (t *Table[T]) entries(items []item, share bool) []Entry[T] {
	es := make([]Entry[T], len(items))
	for i, it := range items {
		es[i].Key = it.key
		if share {
			es[i].Value, _, es[i].Err = t.shared(it)
		} else {
			es[i].Value, es[i].Err = t.open(it.key, it.sealed, it.rev)
		}
	}
	return es
}

// open unseals and decodes a value that was stored at revision rev, and notes
// one that is damaged; rev is 0 for a value that is not stored yet.
func (t *Table[T]) open(key string, sealed []byte, rev int64) (v T, err error) {
	if err = t.openInto(&v, key, sealed); err != nil {
		t.s.damage.note(t.tableDef, key, rev, err)
		return *new(T), err
	}
	return v, nil
}

// openInto is open without the note.
func (t *Table[T]) openInto(v *T, key string, sealed []byte) error {
	schema, plain, err := t.s.keys.ring.Load().open(t.prefix, key, sealed)
	switch {
	case err != nil:
	case schema > t.schema:
		err = &SchemaError{schema, t.schema}
	default:
		err = decodeError(t.unmarshal(plain, v))
	}
	if err != nil {
		return &DamagedError{t.name, key, err}
	}
	return nil
}

// seal encodes and seals a value.
func (t *Table[T]) seal(ring *keyring, key string, v T) ([]byte, error) {
	plain, err := t.marshal(&v)
	if err != nil {
		// The text of the error may quote the value.
		return nil, fmt.Errorf("encode a record of table %s: %T", t.name, err)
	}
	return ring.seal(t.prefix, key, t.schema, plain)
}
