package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
)

// DamagedError names a record that is there but does not open. Its text never
// holds any of the record's content.
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

// decodeError replaces an error of encoding/json, which may quote the value,
// by one that only names the field.
func decodeError(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("its content has another form than expected: field %q is not %v", e.Field, e.Type)
	}
	return fmt.Errorf("its content has another form than expected (%T)", err)
}

// damageList remembers the damaged records that were met, and logs each once.
type damageList struct {
	log *slog.Logger

	mu    sync.Mutex
	found map[string]finding // by table and key
	some  atomic.Bool        // whether anything was ever found
}

type finding struct {
	def *tableDef
	key string
	rev int64
	err error
}

// maxFindings bounds the memory, and the lines in the log, that a wholly
// broken store costs.
const maxFindings = 1000

func (d *damageList) note(def *tableDef, key string, rev int64, err error) {
	if rev == 0 {
		return
	}
	at := def.name + "/" + key
	d.mu.Lock()
	defer d.mu.Unlock()
	if f, known := d.found[at]; known && f.rev == rev {
		return
	}
	if len(d.found) >= maxFindings {
		return
	}
	d.log.Error("damaged record", "table", def.name, "key", key, "error", err)
	if d.found == nil {
		d.found = map[string]finding{}
		d.some.Store(true)
	}
	if d.found[at] = (finding{def, key, rev, err}); len(d.found) == maxFindings {
		d.log.Error("too many damaged records to name them all")
	}
}

// mended takes back what was noted of a record of a Disk table, which has been
// found in order, or not at all. Of the others the state tells.
func (d *damageList) mended(def *tableDef, key string) {
	if d.some.Load() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.found, def.name+"/"+key)
	}
}

// Damaged returns the damaged records that are known, in order of table and
// key: those of Plain tables, those of Sealed tables once Run has looked
// through them after its start, and those of Disk tables that were read. There
// may be more if there are 1000. KeyStatus looks at all records.
func (s *Store) Damaged() []*DamagedError {
	s.damage.mu.Lock()
	defer s.damage.mu.Unlock()
	st := s.state.Load()
	var found []*DamagedError
	for at, f := range s.damage.found {
		if f.def.mode != Disk && st != nil && st.rev >= f.rev {
			it, ok := st.tables[f.def.n].records.Get(item{key: f.key})
			if ok && it.plain != nil {
				f.err = nil
			} else if ok && f.def.mode == Sealed {
				_, f.err = f.def.decode(s.prefix+at, it.sealed)
			}
			if !ok || it.rev != f.rev || f.err == nil {
				delete(s.damage.found, at) // deleted, mended, or its key has been found
				continue
			}
		}
		found = append(found, asDamaged(f.def.name, f.key, f.err))
	}
	slices.SortFunc(found, func(a, b *DamagedError) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Key, b.Key))
	})
	return found
}

func asDamaged(table, key string, err error) *DamagedError {
	if e, ok := errors.AsType[*DamagedError](err); ok {
		return e
	}
	return &DamagedError{table, key, err}
}
