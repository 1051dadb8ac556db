package store_test

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podkey/podkey/internal/store"
)

// TestModel compares the store with a map, over random transactions.
func TestModel(t *testing.T) {
	t.Parallel()
	n := openNotes(t, "")
	space := 0
	rapid.Check(t, func(rt *rapid.T) {
		space++ // each run has keys of its own
		base := fmt.Sprint(space, "/")
		table := n.tables()[rapid.IntRange(0, 2).Draw(rt, "table")]
		model := map[string]note{}
		keys := rapid.SampledFrom([]string{"a", "a/b", "a/b/c", "a/c", "b", "b/a", "bb"})
		prefixes := rapid.SampledFrom([]string{"", "a", "a/", "a/b", "a/b/", "b", "c"})
		for range rapid.IntRange(1, 4).Draw(rt, "transactions") {
			fails := rapid.IntRange(0, 4).Draw(rt, "fails") == 0
			own := maps.Clone(model)
			wiped := []string{}
			err := n.Update(t.Context(), func(tx *store.Tx) error {
				for range rapid.IntRange(0, 6).Draw(rt, "steps") {
					key := keys.Draw(rt, "key")
					switch rapid.SampledFrom([]string{"get", "put", "put", "delete", "wipe", "list"}).Draw(rt, "step") {
					case "get":
						v, ok, err := table.Get(tx, base+key)
						if want, there := own[key]; v != want || ok != there || err != nil {
							rt.Fatalf("Get(%s) = %+v, %v, %v, want %+v, %v", key, v, ok, err, want, there)
						}
					case "put":
						v := note{Text: base + key[:1], N: rapid.IntRange(0, 9).Draw(rt, "n")}
						under := slices.ContainsFunc(wiped, func(p string) bool { return strings.HasPrefix(key, p) })
						if err := table.Put(tx, base+key, v); (err != nil) != under {
							rt.Fatalf("Put(%s): %v", key, err)
						}
						if !under {
							own[key] = v
						}
					case "delete":
						table.Delete(tx, base+key)
						delete(own, key)
					case "wipe":
						prefix := prefixes.Draw(rt, "prefix")
						table.DeletePrefix(tx, base+prefix)
						wiped = append(wiped, prefix)
						maps.DeleteFunc(own, func(k string, _ note) bool { return strings.HasPrefix(k, prefix) })
					case "list":
						prefix, limit := prefixes.Draw(rt, "prefix"), rapid.IntRange(0, 3).Draw(rt, "limit")
						es, err := table.List(tx, base+prefix, "", limit)
						if d := cmp.Diff(expect(model, base, prefix, limit), es); d != "" || err != nil {
							rt.Fatalf("List(%q, %d): %v\n%s", prefix, limit, err, d)
						}
					}
				}
				if fails {
					return errInjected
				}
				return nil
			})
			if fails != (err == errInjected) || !fails && err != nil {
				rt.Fatal(err)
			}
			if !fails {
				model = own
			}
			es, err := table.Scan(t.Context(), base, "", 0)
			if d := cmp.Diff(expect(model, base, "", 0), es); d != "" || err != nil {
				rt.Fatalf("Scan: %v\n%s", err, d)
			}
			if table == n.plain {
				for _, text := range []string{base + "a", base + "b"} {
					var want []note
					for _, e := range expect(model, base, "", 0) {
						if e.Value.Text == text {
							want = append(want, e.Value)
						}
					}
					vs, err := table.Find(t.Context(), "text", text)
					if len(vs) != len(want) || err != nil || len(vs) > 0 && !cmp.Equal(vs, want) {
						rt.Fatalf("Find(%s) = %v, %v, want %v", text, vs, err, want)
					}
				}
			}
		}
	})
}

// expect returns what a listing of the model should be.
func expect(model map[string]note, base, prefix string, limit int) []store.Entry[note] {
	es := []store.Entry[note]{}
	for _, key := range slices.Sorted(maps.Keys(model)) {
		if strings.HasPrefix(key, prefix) && (limit == 0 || len(es) < limit) {
			es = append(es, store.Entry[note]{Key: base + key, Value: model[key]})
		}
	}
	return es
}

// FuzzKey checks that Key can be taken apart again, so that no two lists of
// parts have the same key.
func FuzzKey(f *testing.F) {
	f.Add("a", "b", "c")
	f.Add("a/b", "", "%2F")
	f.Add("/", "%", "a b\x00ü")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		parts := []string{a, b, c}
		key := store.Key(parts...)
		if !slices.Equal(parts, []string{a, b, c}) {
			t.Error("Key changed its arguments")
		}
		var got []string
		for _, p := range strings.Split(key, "/") {
			if strings.Contains(p, "%") {
				var err error
				if p, err = url.PathUnescape(p); err != nil {
					t.Fatalf("%q: %v", key, err)
				}
			}
			got = append(got, p)
		}
		if !slices.Equal(got, parts) {
			t.Errorf("Key(%q) = %q, which is %q", parts, key, got)
		}
		if a != "" && !strings.HasPrefix(key, store.Key(a)+"/") {
			t.Errorf("Key(%q)/ is no prefix of %q", a, key)
		}
	})
}
