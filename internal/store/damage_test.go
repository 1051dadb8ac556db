package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

// damages are the ways to damage record key of a table, and what is said then.
var damages = []struct {
	name   string
	damage func(t *testing.T, n *notes, table, key string) []byte
	reason string
}{
	{"flipped bit", change(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), "does not open"},
	{"flipped key id", change(func(b []byte) []byte { b[3] ^= 1; return b }), "does not open"},
	{"flipped schema", change(func(b []byte) []byte { b[0] = 2; return b }), "does not open"},
	{"truncated", change(func(b []byte) []byte { return b[:len(b)-1] }), "does not open"},
	{"truncated to the key id", change(func(b []byte) []byte { return b[:6] }), "does not open"},
	{"truncated to nothing", change(func([]byte) []byte { return nil }), "does not open"},
	{"endless schema", change(func([]byte) []byte { return slices.Repeat([]byte{0xff}, 20) }), "does not open"},
	{"copied from another key", func(t *testing.T, n *notes, table, _ string) []byte {
		return stored(t, n, table+"/"+goodKey)
	}, "does not open"},
	{"copied from another table", func(t *testing.T, n *notes, table, key string) []byte {
		return sealed(t, n, "podkey/"+table+"x/", key, 1, `{}`)
	}, "does not open"},
	{"of the future", func(t *testing.T, n *notes, table, key string) []byte {
		return sealed(t, n, "podkey/"+table+"/", key, 7, fmt.Sprintf(`{"Text":%q}`, distinctive))
	}, "written in version 7, this program reads up to 1: upgrade it"},
	{"of another form", func(t *testing.T, n *notes, table, key string) []byte {
		return sealed(t, n, "podkey/"+table+"/", key, 1, fmt.Sprintf(`{"Text":%q,"N":1e99}`, distinctive))
	}, `another form than expected: field "N" is not int`},
	{"no JSON", func(t *testing.T, n *notes, table, key string) []byte {
		return sealed(t, n, "podkey/"+table+"/", key, 1, distinctive)
	}, "another form than expected"},
}

const (
	distinctive = "distinctive-content-7731"
	goodKey     = "0012" // the key beyond those of damages
)

func change(fn func(b []byte) []byte) func(*testing.T, *notes, string, string) []byte {
	return func(t *testing.T, n *notes, table, key string) []byte { return fn(stored(t, n, table+"/"+key)) }
}

// TestDamagedRecords damages records in every way, in each kind of table. Each
// must be named, and no other be harmed, by whatever way they are read.
func TestDamagedRecords(t *testing.T) {
	t.Parallel()
	if goodKey != fmt.Sprintf("%04d", len(damages)) {
		t.Fatal("goodKey is not the key beyond those of damages")
	}
	n := openNotes(t, "")
	n.fill(t, len(damages)+1)
	ops := []clientv3.Op{clientv3.OpPut("podkey/~clock", "")}
	for name := range n.byName() {
		for i, d := range damages {
			key := fmt.Sprintf("%04d", i)
			ops = append(ops, clientv3.OpPut("podkey/"+name+"/"+key, string(d.damage(t, n, name, key))))
		}
	}
	if _, err := n.Client().Txn(t.Context()).Then(ops...).Commit(); err != nil {
		t.Fatal(err)
	}
	n.put(t, n.sealed, goodKey, note{Text: "filled", N: len(damages)}) // lets the state go past that
	n.checkDamaged(t)
	n.stop()

	again := openNotes(t, n.dir) // the same by way of Load
	eventually(t, "those that are in memory are found without being read", func() bool { return len(again.Damaged()) == 2*len(damages) })
	again.checkDamaged(t)

	again.fill(t, len(damages)+1) // mends them
	again.checkFilled(t, len(damages)+1)
	if d := again.Damaged(); len(d) > 0 {
		t.Errorf("still damaged: %v", d)
	}
}

func (n *notes) byName() map[string]*store.Table[note] {
	return map[string]*store.Table[note]{"sealed": n.sealed, "plain": n.plain, "disk": n.disk}
}

// checkDamaged checks all that is said of the records that are damaged, and
// that the good one is well.
func (n *notes) checkDamaged(t *testing.T) {
	t.Helper()
	var all []string
	check := func(how, table string, i int, err error) {
		t.Helper()
		d, ok := errors.AsType[*store.DamagedError](err)
		if !ok || d.Table != table || d.Key != fmt.Sprintf("%04d", i) || !strings.Contains(err.Error(), damages[i].reason) || strings.Contains(err.Error(), distinctive) {
			t.Errorf("%s, %s, %s: %v", how, table, damages[i].name, err)
		}
	}
	for _, name := range []string{"disk", "plain", "sealed"} {
		table := n.byName()[name]
		for i := range damages {
			key := fmt.Sprintf("%04d", i)
			all = append(all, name+"/"+key)
			v, ok, err := table.Load(t.Context(), key)
			check("Load", name, i, err)
			if ok || v != (note{}) {
				t.Errorf("Load of %s/%s: %+v, %v", name, key, v, ok)
			}
			n.View(t.Context(), func(tx *store.Tx) error {
				_, _, err := table.Get(tx, key)
				check("Get", name, i, err)
				return nil
			})
		}
		if v, ok, err := table.Load(t.Context(), goodKey); v.N != len(damages) || !ok || err != nil {
			t.Errorf("the good record of %s: %+v, %v, %v", name, v, ok, err)
		}
		es, err := table.Scan(t.Context(), "", "", 0)
		if err != nil || len(es) != len(damages)+1 || es[len(damages)].Err != nil {
			t.Errorf("Scan: %+v, %v", es, err)
			continue
		}
		for i := range damages {
			check("Scan", name, i, es[i].Err)
		}
	}
	if vs, err := n.plain.Find(t.Context(), "text", "filled"); len(vs) != 1 || err != nil {
		t.Errorf("Find: %v, %v", vs, err)
	}
	st := n.keyStatus(t)
	var found, inStatus []string
	for i, d := range n.Damaged() {
		found = append(found, d.Table+"/"+d.Key)
		check("Damaged", d.Table, i%len(damages), d)
	}
	for i, line := range st.Damaged {
		name, reason, _ := strings.Cut(line, ": ")
		inStatus = append(inStatus, name)
		if !strings.Contains(reason, damages[i%len(damages)].reason) || strings.Contains(reason, distinctive) {
			t.Errorf("KeyStatus: %s", line)
		}
	}
	if !cmp.Equal(found, all) || !cmp.Equal(inStatus, all) || st.Records != len(all)+3 {
		t.Errorf("Damaged: %v\nKeyStatus: %+v", found, st)
	}
}

func stored(t *testing.T, n *notes, key string) []byte {
	t.Helper()
	got, err := n.Client().Get(t.Context(), "podkey/"+key)
	if err != nil || len(got.Kvs) != 1 {
		t.Fatal(key, err)
	}
	return got.Kvs[0].Value
}

func sealed(t *testing.T, n *notes, prefix, key string, schema int, plain string) []byte {
	t.Helper()
	b, err := n.SealFor(prefix, key, schema, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDamagedRecordIsGuarded checks that a transaction which found a record
// damaged runs again when another one has mended it.
func TestDamagedRecordIsGuarded(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	n.fill(t, 1)
	for _, table := range n.byName() {
		name := "podkey/sealed/0000"
		if table == n.disk {
			name = "podkey/disk/0000"
		} else if table == n.plain {
			name = "podkey/plain/0000"
		}
		if _, err := n.Client().Put(t.Context(), name, "rubbish"); err != nil {
			t.Fatal(err)
		}
		n.put(t, n.sealed, "x", note{}) // lets the state go past it
		var seen []bool
		err := n.Update(t.Context(), func(tx *store.Tx) error {
			_, _, err := table.Get(tx, "0000")
			if seen = append(seen, err != nil); len(seen) == 1 {
				n.put(t, table, "0000", note{Text: "another's"})
			}
			return table.Put(tx, "0000", note{Text: "mended"})
		})
		if v, _, errL := table.Load(t.Context(), "0000"); err != nil || errL != nil || v.Text != "mended" || !cmp.Equal(seen, []bool{true, false}) {
			t.Errorf("%v, %+v, %v, %v", seen, v, err, errL)
		}
	}
}

// TestDamagedRecordKeepsItsKey checks that a data key is not dropped while a
// record names it, even one that does not open: what was moved by mistake can
// be moved back.
func TestDamagedRecordKeepsItsKey(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	n.fill(t, 2)
	good := stored(t, n, "sealed/0000")
	put := func(key string, value []byte) {
		if _, err := n.Client().Put(t.Context(), "podkey/"+key, string(value)); err != nil {
			t.Fatal(err)
		}
		n.put(t, n.sealed, "0001", note{Text: "filled", N: 1})
	}
	put("sealed/0000", stored(t, n, "sealed/0001"))
	if err := n.RotateDataKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := n.Reseal(t.Context())
	left, ok := errors.AsType[*store.LeftoverError](err)
	if !ok || !cmp.Equal(left.Records, []string{"sealed/0000"}) || !strings.Contains(err.Error(), "sealed/0000") {
		t.Errorf("err = %v", err)
	}
	if st := n.keyStatus(t); len(st.DataKeys) != 2 || st.Stale != 1 || len(st.Damaged) != 1 {
		t.Errorf("status: %+v", st)
	}
	put("sealed/0000", good)
	if err := n.Reseal(t.Context()); err != nil {
		t.Error(err)
	}
	if st := n.keyStatus(t); len(st.DataKeys) != 1 || st.Stale != 0 || len(st.Damaged) != 0 {
		t.Errorf("status: %+v", st)
	}
	n.ForgetKeys()
	n.checkFilled(t, 2)
}

// TestDamageIsLoggedOnce checks the log, and that it does not grow with each
// read.
func TestDamageIsLoggedOnce(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	n.fill(t, 2)
	if _, err := n.Client().Put(t.Context(), "podkey/sealed/0000", "rubbish"); err != nil {
		t.Fatal(err)
	}
	n.stop()
	var log logBuffer
	s, err := store.Open(t.Context(), store.Options{Dir: n.dir + "/etcd", KEK: store.KEKInFile(n.kekFile()), Log: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Start(t, s, n.declare)
	for range 5 {
		if _, _, err := n.sealed.Load(t.Context(), "0000"); err == nil {
			t.Fatal("not damaged")
		}
	}
	if text := log.String(); strings.Count(text, "damaged record") != 1 || !strings.Contains(text, "table=sealed key=0000") {
		t.Errorf("log: %s", text)
	}
}

// leaky is a record whose own coding quotes its content in errors.
type leaky struct{ Secret string }

func (l leaky) MarshalJSON() ([]byte, error) {
	if l.Secret == "s3cret" {
		return nil, errors.New("cannot encode " + l.Secret)
	}
	return json.Marshal(l.Secret)
}

func (l *leaky) UnmarshalJSON(b []byte) error { return fmt.Errorf("cannot decode %s", b) }

// TestErrorsDoNotQuoteRecords checks errors of decoding and encoding.
func TestErrorsDoNotQuoteRecords(t *testing.T) {
	t.Parallel()
	var table *store.Table[leaky]
	s := storetest.New(t, "", func(s *store.Store) { table = store.NewTable[leaky](s, "leaky", store.TableOptions[leaky]{}) })
	put := func(text string) error {
		return s.Update(t.Context(), func(tx *store.Tx) error { return table.Put(tx, "k", leaky{text}) })
	}
	if err := put("s3cret"); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("encode: %v", err)
	}
	if err := put("s3cret too"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := table.Load(t.Context(), "k"); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("decode: %v", err)
	}
}
