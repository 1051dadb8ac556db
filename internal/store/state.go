package store

import (
	"slices"
	"strings"

	"github.com/google/btree"
)

// state is what readers see: every cached table at one revision. It is never
// changed; a newer one takes its place. So a reader takes no lock, and a
// transaction has its snapshot for nothing.
type state struct {
	rev    int64
	tables []view // by table number; empty for Disk tables
}

// view is a table in a state.
type view struct {
	records    *btree.BTreeG[item]
	postings   []*btree.BTreeG[posting] // by index number
	generation int64                    // grows with every change of the table
}

// item is a record under its key.
type item struct {
	key string
	*record
}

// record is never changed either.
type record struct {
	sealed []byte
	rev    int64
	plain  any // *T for a Plain table whose record opens, else nil
}

// posting says that a record is found under a value of an index.
type posting struct {
	value, key string
	*record
}

func newItems() *btree.BTreeG[item] {
	return btree.NewG(32, func(a, b item) bool { return a.key < b.key })
}

func newPostings() *btree.BTreeG[posting] {
	return btree.NewG(32, func(a, b posting) bool {
		if a.value != b.value {
			return a.value < b.value
		}
		return a.key < b.key
	})
}

// scan returns up to limit items (0: all) whose key has the prefix and is
// greater than after.
func (v view) scan(prefix, after string, limit int) []item {
	var items []item
	v.records.AscendGreaterOrEqual(item{key: scanFrom(prefix, after)}, func(it item) bool {
		if !strings.HasPrefix(it.key, prefix) {
			return false
		}
		items = append(items, it)
		return limit == 0 || len(items) < limit
	})
	return items
}

// scanFrom returns the first key that a listing of prefix beyond after may
// hold.
func scanFrom(prefix, after string) string {
	if after != "" && after >= prefix {
		return after + "\x00"
	}
	return prefix
}

// find calls fn for each item under a value of an index, in order of key.
func (v view) find(index int, value string, fn func(it item)) {
	v.postings[index].AscendGreaterOrEqual(posting{value: value}, func(p posting) bool {
		if p.value != value {
			return false
		}
		fn(item{p.key, p.record})
		return true
	})
}

// cache is the working copy of a table, from which views are taken. Only the
// goroutine that follows etcd has it.
type cache struct {
	view
	def   *tableDef
	dirty bool // differs from the last view
}

func newCache(def *tableDef) *cache {
	c := &cache{def: def, view: view{records: newItems()}}
	for range def.indexes {
		c.postings = append(c.postings, newPostings())
	}
	return c
}

// apply makes value (nil: none) the record of key as of revision rev. Events
// older than what the cache has are ignored.
func (c *cache) apply(key, fullKey string, value []byte, rev int64, damage *damageList) {
	old, had := c.records.Get(item{key: key})
	if had && old.rev > rev {
		return
	}
	c.dirty, c.generation = true, max(c.generation+1, rev)
	c.index(old, (*btree.BTreeG[posting]).Delete)
	if value == nil {
		c.records.Delete(item{key: key})
		return
	}
	it := item{key, &record{sealed: value, rev: rev}}
	if c.def.mode == Plain {
		v, err := c.def.decode(fullKey, value)
		if err != nil {
			damage.note(c.def, key, rev, err)
		} else {
			it.plain = v
		}
	}
	c.index(it, (*btree.BTreeG[posting]).ReplaceOrInsert)
	c.records.ReplaceOrInsert(it)
}

// index does what is to be done with each of an item's postings.
func (c *cache) index(it item, do func(*btree.BTreeG[posting], posting) (posting, bool)) {
	if it.record == nil || it.plain == nil {
		return
	}
	for i, ix := range c.def.indexes {
		for _, value := range ix.values(it.plain) {
			do(c.postings[i], posting{value, it.key, it.record})
		}
	}
}

// take returns the cache's content as a view that later changes do not reach.
func (c *cache) take() view {
	c.dirty = false
	v := view{records: c.records.Clone(), generation: c.generation}
	if len(c.postings) > 0 {
		v.postings = make([]*btree.BTreeG[posting], len(c.postings))
		for i, p := range c.postings {
			v.postings[i] = p.Clone()
		}
	}
	return v
}

// takeAll returns the tables of the next state: old ones, with views of the
// caches that have changed.
func takeAll(old []view, caches []*cache) []view {
	if !slices.ContainsFunc(caches, func(c *cache) bool { return c != nil && c.dirty }) {
		return old
	}
	tables := slices.Clone(old)
	for i, c := range caches {
		if c != nil && c.dirty {
			tables[i] = c.take()
		}
	}
	return tables
}
