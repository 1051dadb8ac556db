package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// KeyStatus tells what the records are sealed under.
type KeyStatus struct {
	KEK        string          `json:"kek"`        // id of the key-encryption key that the keyring is stored under
	KEKPending bool            `json:"kekPending"` // its rotation has begun and is not finished
	DataKeys   []DataKeyStatus `json:"dataKeys"`   // oldest first
	Records    int             `json:"records"`    // of all tables
	Stale      int             `json:"stale"`      // sealed under an old data key, to be rewritten
	Damaged    []string        `json:"damaged"`    // "table/key: reason", in order of key
}

// DataKeyStatus is one data key.
type DataKeyStatus struct {
	ID      string `json:"id"`
	Primary bool   `json:"primary"` // seals what is written now
	Records int    `json:"records"` // sealed under it
}

// KeyStatus looks at every record in etcd, which takes a while with many. It
// does not need Run.
func (s *Store) KeyStatus(ctx context.Context) (KeyStatus, error) {
	ring := s.keys.ring.Load()
	st := KeyStatus{KEK: ring.kek, Damaged: []string{}}
	if file, ok := s.keys.currentKEK().(*FileKEK); ok {
		st.KEKPending = file.size() > 1
	}
	under := map[uint32]int{}
	err := s.each(ctx, s.prefix, 0, pageBytes, func(full string, sealed []byte, mod int64) error {
		name := full[len(s.prefix):]
		if name[0] == '~' {
			return nil
		}
		st.Records++
		if id, ok := sealedUnder(sealed); ok {
			under[id]++
		}
		if ring.stale(sealed) {
			st.Stale++
		}
		table, key, _ := strings.Cut(name, "/")
		i := slices.IndexFunc(s.defs, func(d *tableDef) bool { return d.name == table })
		var err error
		if i >= 0 {
			if _, err = s.defs[i].decode(full, sealed); err != nil {
				s.damage.note(s.defs[i], key, mod, err)
			}
		} else {
			_, _, err = ring.open(full, "", sealed) // of a table that this program does not have
		}
		if err != nil {
			st.Damaged = append(st.Damaged, fmt.Sprintf("%s: %v", name, asDamaged(table, key, err).Err))
		}
		return nil
	})
	if err != nil {
		return KeyStatus{}, unavailable(err)
	}
	for _, id := range ring.ids {
		st.DataKeys = append(st.DataKeys, DataKeyStatus{ID: keyID(id), Primary: id == ring.primary, Records: under[id]})
	}
	return st, nil
}
