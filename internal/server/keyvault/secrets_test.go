package keyvault_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

// pages follows the links of a listing and returns the ids of all items.
func (s *system) pages(caller, vault, target string) (ids []string, count int) {
	s.t.Helper()
	for target != "" {
		a := s.ok(caller, "GET", vault, target, nil)
		count++
		for _, item := range a.body["value"].([]any) {
			ids = append(ids, item.(map[string]any)["id"].(string))
		}
		next := a.str("nextLink")
		if next != "" && !strings.HasPrefix(next, "https://"+vault+"."+suffix+"/") {
			s.t.Fatalf("next link %q leaves the vault", next)
		}
		target = strings.TrimPrefix(next, "https://"+vault+"."+suffix)
	}
	return ids, count
}

func TestEveryApiVersion(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", "one")
	s.set("kv1", "s", "two")
	versions := keyvault.APIVersionsForTest()
	for _, v := range []string{
		"2015-06-01", "2016-10-01", "7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "7.6-preview.1", "7.6-preview.2", "2025-06-01-preview",
		"2025-07-01", "2026-01-01-preview", "2026-03-01-preview", "2026-04-01", "2026-05-01-preview", "2026-07-01-preview",
		"7.3-preview", "7.4-preview.1", "7.5-preview.1",
	} {
		if !slices.Contains(versions, v) {
			t.Errorf("%s is not in the list", v)
		}
	}
	for _, v := range versions {
		a := s.ok("reader", "GET", "kv1", "/secrets/s?api-version="+v, nil)
		if a.str("value") != "two" {
			t.Errorf("%s: %s", v, a.raw)
		}
		if _, shown := a.body["previousVersion"]; shown != (v >= "2025-07-01" && v[0] == '2') {
			t.Errorf("%s: previousVersion shown: %v", v, shown)
		}
	}
	s.ok("reader", "GET", "kv1", "/secrets/s?api%2Dversion=7%2E4", nil)
	s.ok("reader", "GET", "kv1", "/secrets/%73", nil) // an escape that need not be one
}

func TestPaging(t *testing.T) {
	s := newSystem(t)
	var names []string
	for i := range 60 {
		names = append(names, fmt.Sprintf("Name-%02d", i*7%60))
		s.set("kv1", names[i], "v")
	}
	slices.Sort(names)
	for size, pages := range map[string]int{"": 3, "&maxresults=25": 3, "&maxresults=7": 9, "&maxresults=20": 3} {
		ids, count := s.pages("reader", "kv1", "/secrets?"+api+size)
		if len(ids) != 60 || count != pages {
			t.Errorf("%q: %d items on %d pages, want 60 on %d", size, len(ids), count, pages)
		}
		for i, id := range ids {
			if want := "https://kv1." + suffix + "/secrets/" + names[i]; id != want {
				t.Fatalf("item %d is %s, want %s", i, id, want)
			}
		}
	}
	// What is deleted between two pages is not missed for, and not shown.
	first := s.ok("reader", "GET", "kv1", "/secrets?"+api+"&maxresults=10", nil)
	s.ok("officer", "DELETE", "kv1", "/secrets/name-09", nil)
	s.ok("officer", "DELETE", "kv1", "/secrets/name-10", nil)
	rest, _ := s.pages("reader", "kv1", strings.TrimPrefix(first.str("nextLink"), "https://kv1."+suffix))
	if len(rest) != 49 || !strings.HasSuffix(rest[0], "/Name-11") {
		t.Errorf("%d items from %s", len(rest), rest[0])
	}
	for _, name := range names[11:] {
		s.ok("officer", "DELETE", "kv1", "/secrets/"+name, nil)
	}
	ids, count := s.pages("reader", "kv1", "/deletedsecrets?"+api+"&maxresults=20")
	if len(ids) != 51 || count != 3 {
		t.Errorf("%d deleted on %d pages", len(ids), count)
	}
}

func TestPagingVersions(t *testing.T) {
	s := newSystem(t)
	versions := map[string]bool{}
	for i := range 53 {
		versions[s.set("kv1", "s", fmt.Sprint(i)).version()] = true
	}
	s.set("kv1", "s2", "other")
	for _, size := range []string{"", "&maxresults=1", "&maxresults=13", "&maxresults=24"} {
		ids, _ := s.pages("reader", "kv1", "/secrets/S/versions?"+api+size)
		seen := map[string]bool{}
		for _, id := range ids {
			seen[id[strings.LastIndexByte(id, '/')+1:]] = true
		}
		if len(ids) != 53 || len(seen) != 53 {
			t.Fatalf("%q: %d items, %d different", size, len(ids), len(seen))
		}
		for v := range versions {
			if !seen[v] {
				t.Errorf("%q: version %s is missing", size, v)
			}
		}
	}
}

// Nobody's set is lost or overwritten: each acknowledged one is a version
// with its own value.
func TestConcurrentSetsAllBecomeVersions(t *testing.T) {
	s := newSystem(t)
	const workers, each = 8, 10
	var mu sync.Mutex
	values := map[string]string{}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				value := fmt.Sprintf("%d-%d", w, i)
				a := s.call("officer", "PUT", "kv1", "/secrets/s", map[string]any{"value": value})
				if a.status != 200 {
					t.Errorf("%d %s", a.status, a.raw)
					return
				}
				mu.Lock()
				values[a.version()] = value
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(values) != workers*each {
		t.Fatalf("%d different versions", len(values))
	}
	for v, want := range values {
		if got := s.ok("reader", "GET", "kv1", "/secrets/s/"+v, nil).str("value"); got != want {
			t.Errorf("version %s is %q, want %q", v, got, want)
		}
	}
	// The chain of predecessors leads through all of them.
	seen := map[string]bool{}
	a := s.ok("reader", "GET", "kv1", "/secrets/s", nil)
	for {
		seen[a.version()] = true
		prev := a.str("previousVersion")
		if prev == "" {
			break
		}
		a = s.ok("reader", "GET", "kv1", "/secrets/s/"+prev, nil)
	}
	if len(seen) != workers*each {
		t.Errorf("the chain has %d versions", len(seen))
	}
}

// Sets and deletions of one name at once: whatever the order, an answered set
// is found in the live secret or in the deleted one, never in none.
func TestConcurrentSetsAndDeletions(t *testing.T) {
	s := newSystem(t)
	for round := range 10 {
		name := fmt.Sprint("s", round)
		s.set("kv1", name, "first")
		var wg sync.WaitGroup
		statuses := make([]int, 4)
		for i := range statuses {
			wg.Go(func() {
				if i%2 == 0 {
					statuses[i] = s.call("officer", "PUT", "kv1", "/secrets/"+name, map[string]any{"value": "second"}).status
				} else {
					statuses[i] = s.call("officer", "DELETE", "kv1", "/secrets/"+name, nil).status
				}
			})
		}
		wg.Wait()
		want := 1
		for i, st := range statuses {
			if i%2 == 0 && st == 200 {
				want++
			} else if i%2 == 0 && st != 409 || i%2 == 1 && st != 200 && st != 404 {
				t.Errorf("status %d", st)
			}
		}
		s.ok("officer", "POST", "kv1", "/deletedsecrets/"+name+"/recover", nil)
		if ids, _ := s.pages("reader", "kv1", "/secrets/"+name+"/versions?"+api); len(ids) != want {
			t.Errorf("round %d: %d versions after %v, want %d", round, len(ids), statuses, want)
		}
	}
}

func TestTimesAndUpdated(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", "v")
	s.pass(time.Hour)
	a := s.ok("officer", "PATCH", "kv1", "/secrets/s", `{"attributes":{"nbf":4000000000,"exp":1}}`)
	attrs := a.body["attributes"].(map[string]any)
	if attrs["created"] != 1_800_000_000.0 || attrs["updated"] != 1_800_003_600.0 {
		t.Errorf("%v", attrs)
	}
	// nbf and exp inform; they do not stop a read.
	if got := s.ok("reader", "GET", "kv1", "/secrets/s", nil).str("value"); got != "v" {
		t.Errorf("%q", got)
	}
}

func TestLimits(t *testing.T) {
	s := newSystem(t)
	tags := func(n, nameLen, valueLen int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprintf("%02d", i)+strings.Repeat("é", nameLen-2)] = strings.Repeat("é", valueLen)
		}
		return m
	}
	for name, tt := range map[string]struct {
		body any
		ok   bool
	}{
		"value":           {map[string]any{"value": strings.Repeat("x", 25_600)}, true},
		"value of bytes":  {map[string]any{"value": strings.Repeat("é", 12_801)}, false},
		"long value":      {map[string]any{"value": strings.Repeat("x", 25_601)}, false},
		"content type":    {map[string]any{"value": "", "contentType": strings.Repeat("é", 255)}, true},
		"long type":       {map[string]any{"value": "", "contentType": strings.Repeat("x", 256)}, false},
		"tags":            {map[string]any{"value": "", "tags": tags(15, 512, 512)}, true},
		"too many tags":   {map[string]any{"value": "", "tags": tags(16, 2, 0)}, false},
		"long tag name":   {map[string]any{"value": "", "tags": tags(1, 513, 0)}, false},
		"long tag value":  {map[string]any{"value": "", "tags": tags(1, 2, 513)}, false},
		"negative time":   {`{"value":"","attributes":{"exp":-1}}`, false},
		"far time":        {`{"value":"","attributes":{"nbf":253402300800}}`, false},
		"end of time":     {`{"value":"","attributes":{"nbf":253402300799}}`, true},
		"nulls":           {`{"value":"","contentType":null,"tags":null,"attributes":null}`, true},
		"null attributes": {`{"value":"","attributes":{"enabled":null,"nbf":null,"exp":null}}`, true},
	} {
		if a := s.call("officer", "PUT", "kv1", "/secrets/s", tt.body); (a.status == 200) != tt.ok {
			t.Errorf("%s: %d %.200s", name, a.status, a.raw)
		} else if !tt.ok {
			s.checkRefusal(a, 400, "BadParameter", name)
		}
	}
	name := strings.Repeat("n", 127)
	s.set("kv1", name, "v")
	s.refused(400, "BadParameter", "officer", "PUT", "kv1", "/secrets/"+name+"n", map[string]any{"value": "v"})
}

func TestValuesComeBackAsTheyWere(t *testing.T) {
	s := newSystem(t)
	for _, value := range []string{
		"", " ", "\x00\x01\x1f\x7f", "\"\\/\b\f\n\r\t", "<script>&</script>", "\u2028\u2029\ufeff\ufffd", "é中\U0001F511\U0010FFFF", "\u0080\u009f",
		`{"json":"inside"}`, "-----BEGIN PRIVATE KEY-----\nabc\n", strings.Repeat("\n", 12_000),
	} {
		set := s.set("kv1", "s", value)
		got := s.ok("reader", "GET", "kv1", "/secrets/s", nil)
		if set.str("value") != value || got.str("value") != value {
			t.Errorf("%q came back as %q", value, got.str("value"))
		}
	}
}

func TestStateSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	const marker = "a-value-that-must-not-be-on-disk-in-the-clear"
	var version, deleted string
	t.Run("write", func(t *testing.T) {
		s := newSystemIn(t, dir, &lines{})
		version = s.set("kv1", "s", marker+"-1").version()
		s.set("kv1", "s", marker+"-2")
		deleted = s.set("kv1", "gone", marker+"-3").version()
		s.ok("officer", "DELETE", "kv1", "/secrets/gone", nil)
		s.ok("officer", "POST", "kv1", "/secrets/s/backup", nil)
	})
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(marker)) {
			t.Errorf("%s has a value in the clear", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("read", func(t *testing.T) {
		s := openSystem(t, dir, &lines{})
		if got := s.ok("reader", "GET", "kv1", "/secrets/s", nil).str("value"); got != marker+"-2" {
			t.Errorf("%q", got)
		}
		if got := s.ok("reader", "GET", "kv1", "/secrets/s/"+version, nil).str("value"); got != marker+"-1" {
			t.Errorf("%q", got)
		}
		s.ok("officer", "POST", "kv1", "/deletedsecrets/gone/recover", nil)
		if got := s.ok("reader", "GET", "kv1", "/secrets/gone/"+deleted, nil).str("value"); got != marker+"-3" {
			t.Errorf("%q", got)
		}
	})
}

// A record that does not open is named in the log and the only one that is
// not served.
func TestDamagedRecord(t *testing.T) {
	dir := t.TempDir()
	var uid string
	var versions []string
	t.Run("write", func(t *testing.T) {
		s := newSystemIn(t, dir, &lines{})
		for _, name := range []string{"a", "b", "c", "c", "c", "c", "c", "c"} {
			versions = append(versions, s.set("kv1", name, "value-of-"+name).version())
		}
		v, _, err := s.vaults.Get(t.Context(), "kv1")
		if err != nil {
			t.Fatal(err)
		}
		uid = v.UID
	})
	t.Run("damage", func(t *testing.T) { // a newer program's record does not open in this one
		var secrets, older *store.Table[string]
		st := storetest.New(t, dir, func(s *store.Store) {
			secrets = store.NewTable[string](s, "secret", store.TableOptions[string]{Schema: 99})
			older = store.NewTable[string](s, "secretversion", store.TableOptions[string]{Schema: 99, Mode: store.Disk})
		})
		kept, err := older.Scan(t.Context(), uid+"/", "", 0)
		if err != nil || len(kept) != 5 {
			t.Fatal(len(kept), err)
		}
		err = st.Update(t.Context(), func(tx *store.Tx) error {
			return errors.Join(secrets.Put(tx, uid+"/b", "from the future"), older.Put(tx, kept[0].Key, "from the future"), older.Put(tx, kept[3].Key, "from the future"))
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Run("read", func(t *testing.T) {
		s := openSystem(t, dir, &lines{})
		ids, _ := s.pages("reader", "kv1", "/secrets?"+api+"&maxresults=1")
		if len(ids) != 2 {
			t.Errorf("%v", ids)
		}
		if !strings.Contains(s.log.String(), uid+"/b") {
			t.Error("the damaged record is not named in the log")
		}
		if got := s.ok("reader", "GET", "kv1", "/secrets/c", nil).str("value"); got != "value-of-c" {
			t.Errorf("%q", got)
		}
		for size := 1; size <= 6; size++ {
			if ids, _ := s.pages("reader", "kv1", fmt.Sprint("/secrets/c/versions?", api, "&maxresults=", size)); len(ids) != 4 {
				t.Errorf("pages of %d: %d versions of %d, two of them damaged", size, len(ids), len(versions)-2)
			}
		}
		s.refused(500, "InternalServerError", "officer", "POST", "kv1", "/secrets/c/backup", nil)
		a := s.refused(500, "InternalServerError", "reader", "GET", "kv1", "/secrets/b", nil)
		if strings.Contains(a.raw, "future") || strings.Contains(a.raw, uid) {
			t.Errorf("%s", a.raw)
		}
	})
}
