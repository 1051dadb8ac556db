package store

import (
	"log/slog"
	"strings"

	"github.com/google/btree"
)

// cache is a table in memory. The store's mu guards it.
type cache struct {
	name       string
	tree       *btree.BTreeG[*item]
	generation int64 // revision of the last change
	indexes    map[string]*index
	decode     func(fullKey string, sealed []byte) (any, error) // nil for Sealed tables
	log        *slog.Logger
}

// item is one record; it is never changed once it is in a tree.
type item struct {
	key    string
	sealed []byte
	rev    int64
	plain  any // *T for a Plain table whose record opens, else nil
}

// index is an ordered set of "<value>\x00<key>".
type index struct {
	tree   *btree.BTreeG[string]
	values func(any) []string
}

func newIndex() *btree.BTreeG[string] { return btree.NewOrderedG[string](32) }

func newCache(name string) *cache {
	return &cache{name: name, tree: newTree(), indexes: map[string]*index{}}
}

func (c *cache) reset() {
	c.tree = newTree()
	for _, ix := range c.indexes {
		ix.tree = newIndex()
	}
	c.generation++
}

// apply makes value (nil: none) the record of key as of revision rev. Events
// older than what the cache has are ignored.
func (c *cache) apply(key, fullKey string, value []byte, rev int64) {
	old, had := c.tree.Get(&item{key: key})
	if had && old.rev > rev {
		return
	}
	if had {
		c.unindex(old)
	}
	c.generation = max(c.generation+1, rev)
	if value == nil {
		c.tree.Delete(&item{key: key})
		return
	}
	it := &item{key: key, sealed: value, rev: rev}
	if c.decode != nil {
		v, err := c.decode(fullKey, value)
		if err != nil {
			c.log.Error("damaged record", "error", err)
		} else {
			it.plain = v
			for _, ix := range c.indexes {
				for _, val := range ix.values(v) {
					ix.tree.ReplaceOrInsert(val + "\x00" + key)
				}
			}
		}
	}
	c.tree.ReplaceOrInsert(it)
}

func (c *cache) unindex(it *item) {
	if it.plain == nil {
		return
	}
	for _, ix := range c.indexes {
		for _, val := range ix.values(it.plain) {
			ix.tree.Delete(val + "\x00" + it.key)
		}
	}
}

// find returns the items under a value of an index. It panics on an index
// that the table does not have: our own mistake.
func (c *cache) find(name, value string) []*item {
	var items []*item
	prefix := value + "\x00"
	c.indexes[name].tree.AscendGreaterOrEqual(prefix, func(s string) bool {
		if !strings.HasPrefix(s, prefix) {
			return false
		}
		if it, ok := c.tree.Get(&item{key: s[len(prefix):]}); ok {
			items = append(items, it)
		}
		return true
	})
	return items
}

// snapshot returns a copy that later changes do not reach; it costs no more
// than a few pointers.
func (c *cache) snapshot() *cache {
	s := *c
	s.tree = c.tree.Clone()
	s.indexes = make(map[string]*index, len(c.indexes))
	for name, ix := range c.indexes {
		s.indexes[name] = &index{tree: ix.tree.Clone(), values: ix.values}
	}
	return &s
}
