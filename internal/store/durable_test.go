package store_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/podkey/podkey/internal/store"
)

// TestKilled kills a process in the middle of its writes, again and again,
// and looks for what it had been told was written.
func TestKilled(t *testing.T) {
	t.Parallel()
	const rounds, writers = 5, 4
	dir := t.TempDir()
	acked := map[string]int{}
	for range rounds {
		cmd := child("write", dir)
		cmd.Args = append(cmd.Args, strconv.Itoa(writers))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last := 20 + rand.IntN(200)
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == last {
				cmd.Process.Kill()
			}
			var key string
			var v int
			if _, err := fmt.Sscan(lines.Text(), &key, &v); err == nil { // the last line may be cut off
				acked[key] = max(acked[key], v)
			}
		}
		cmd.Wait()

		n := openNotes(t, dir)
		for key, v := range acked {
			sealed, _, err := n.sealed.Load(t.Context(), key)
			if err != nil || sealed.N < v {
				t.Errorf("%s is %d, but %d was acknowledged; %v", key, sealed.N, v, err)
			}
			plain, _, errP := n.plain.Load(t.Context(), key)
			disk, _, errD := n.disk.Load(t.Context(), key)
			if plain.N != sealed.N || disk.N != sealed.N {
				t.Errorf("%s was half written: %d %d %d, %v %v", key, sealed.N, plain.N, disk.N, errP, errD)
			}
		}
		if st := n.keyStatus(t); len(st.Damaged) > 0 {
			t.Errorf("damaged: %v", st.Damaged)
		}
		n.stop()
	}
	if len(acked) != writers {
		t.Errorf("%d of %d writers were heard of", len(acked), writers)
	}
}

// childWrite counts up in all tables, and prints each number that is
// acknowledged, until it is killed.
func childWrite(ctx context.Context, dir string) error {
	s, err := store.Open(ctx, store.Options{
		Dir: filepath.Join(dir, "etcd"), KEK: store.KEKInFile(filepath.Join(dir, "kek.json")), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	n := &notes{}
	n.declare(s)
	if err := s.Load(ctx); err != nil {
		return err
	}
	go s.Run(ctx)
	writers, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	var out sync.Mutex
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			key := fmt.Sprint("writer", w)
			for {
				var next note
				err := s.Update(ctx, func(tx *store.Tx) error {
					v, _, err := n.sealed.Get(tx, key)
					if err != nil {
						return err
					}
					next = note{Text: strings.Repeat("x", rand.IntN(5000)), N: v.N + 1}
					for _, table := range n.tables() {
						if err := table.Put(tx, key, next); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					panic(err)
				}
				out.Lock()
				fmt.Println(key, next.N)
				out.Unlock()
			}
		})
	}
	wg.Wait()
	return nil
}

// TestAcknowledgedWritesAreSynced counts etcd's syncs of its log: writes that
// follow one another need one each.
func TestAcknowledgedWritesAreSynced(t *testing.T) {
	n := openNotes(t, "")
	const writes = 50
	before := walSyncs(t)
	for i := range writes {
		n.put(t, n.sealed, "k", note{N: i})
	}
	if got := walSyncs(t) - before; got < writes {
		t.Errorf("%d syncs for %d writes", got, writes)
	}
}

func walSyncs(t *testing.T) uint64 {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "etcd_disk_wal_fsync_duration_seconds" {
			return f.GetMetric()[0].GetHistogram().GetSampleCount()
		}
	}
	t.Fatal("etcd does not count its syncs any more")
	return 0
}

// TestDataDirectoryHoldsNoPlainText looks at every byte of every file, while
// the store runs, after it has stopped, and after it was opened again.
func TestDataDirectoryHoldsNoPlainText(t *testing.T) {
	t.Parallel()
	const secret = "correct horse battery staple 4711"
	n := openNotes(t, "")
	kek := readFile(t, n.kekFile())
	look := func(when string) {
		t.Helper()
		needles := map[string][]byte{
			"the secret":     []byte(secret),
			"part of it":     []byte("battery staple"),
			"its base64":     []byte(base64.StdEncoding.EncodeToString([]byte(secret))[4:40]),
			"its hex":        []byte(hex.EncodeToString([]byte(secret))),
			"a field's name": []byte(`"Text"`),
		}
		files := 0
		err := filepath.WalkDir(filepath.Join(n.dir, "etcd"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files++
			content := readFile(t, path)
			for what, needle := range needles {
				if i := bytes.Index(content, needle); i >= 0 {
					t.Errorf("%s: %s is in %s at %d", when, what, path, i)
				}
			}
			fi, err := d.Info()
			if err == nil && fi.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s may be read by others: %v", path, fi.Mode())
			}
			return err
		})
		if err != nil || files < 3 {
			t.Errorf("%s: %d files, %v", when, files, err)
		}
	}
	for _, table := range n.tables() {
		n.put(t, table, "k", note{Text: secret})
		n.put(t, table, "k", note{Text: secret + " again"})
	}
	if err := n.RotateDataKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Reseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	look("running")
	n.stop()
	look("stopped")
	openNotes(t, n.dir).stop()
	look("opened again")
	if bytes.Contains(kek, []byte(secret)) || !bytes.Contains(readFile(t, filepath.Join(n.dir, "etcd", "member", "snap", "db")), []byte("podkey/sealed/k")) {
		t.Error("the test looks for the wrong thing: not even the record's key is in the database")
	}
}
