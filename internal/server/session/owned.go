package session

import (
	"slices"
	"time"

	"github.com/podkey/podkey/internal/store"
)

// How much of each kind a user can have at a time. Whoever has the password,
// and signs in again and again, must not fill the store.
const (
	maxFamilies = 50
	maxBrowsers = 50
	maxCodes    = 100 // within codeMemory
)

// owned is what a user has of one kind, by key and in the order in which it
// came. It is under the user's object id.
type owned struct {
	Keys []string  `json:"keys"`
	Last time.Time `json:"last"` // when the last came
}

// quota bounds what each user has of one kind: what is new ends the oldest.
// What ended by itself stays in the list until its turn comes.
type quota[T any] struct {
	lists *store.Table[owned]
	of    *store.Table[T]
	most  int
	life  time.Duration // of what is in the lists, at most
}

func (q *quota[T]) expires(o *owned) time.Time { return o.Last.Add(q.life) }

// add puts something into its table and into its user's list.
func (q *quota[T]) add(tx *store.Tx, userID, key string, v T, now time.Time) error {
	o, _, err := q.lists.Get(tx, userID)
	if err != nil {
		return err
	}
	o.Keys, o.Last = append(o.Keys, key), now
	for len(o.Keys) > q.most {
		q.of.Delete(tx, o.Keys[0])
		o.Keys = o.Keys[1:]
	}
	if err := q.lists.Put(tx, userID, o); err != nil {
		return err
	}
	return q.of.Put(tx, key, v)
}

// remove takes something out of both.
func (q *quota[T]) remove(tx *store.Tx, userID, key string) error {
	q.of.Delete(tx, key)
	o, ok, err := q.lists.Get(tx, userID)
	if err != nil || !ok {
		return err
	}
	o.Keys = slices.DeleteFunc(o.Keys, func(k string) bool { return k == key })
	return q.lists.Put(tx, userID, o)
}
