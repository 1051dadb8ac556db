package audit

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

// TestReopenLosesNothing rotates the file as logrotate does, again and again,
// while many write: each acknowledged line must be in exactly one of the files.
func TestReopenLosesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	l, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	const writers, lines, rotations = 8, 300, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range lines {
				if err := l.Write(context.Background(), Record{Plane: "vault", Object: "/" + strconv.Itoa(w) + "/" + strconv.Itoa(i)}); err != nil {
					t.Error(err)
				}
				if i%50 == 0 {
					if err := l.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for i := range rotations {
		if err := os.Rename(path, path+"."+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "audit.log*"))
	if err != nil || len(files) != rotations+1 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	seen := map[string]int{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			_, rest, ok := bytes.Cut(line, []byte(`"resourceId":"`))
			object, _, end := bytes.Cut(rest, []byte(`"`))
			if !ok || !end || line[len(line)-1] != '\n' {
				t.Fatalf("broken line %q", line)
			}
			seen[string(object)]++
		}
	}
	for object, n := range seen {
		if n != 1 {
			t.Errorf("%s is there %d times", object, n)
		}
	}
	if len(seen) != writers*lines {
		t.Errorf("%d lines of %d are there", len(seen), writers*lines)
	}
}

// TestReopenFailure keeps the old file when there can be no new one.
func TestReopenFailure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Open(filepath.Join(dir, "audit.log"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	moved := dir + "2"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Fatal("reopened in a directory that is gone")
	}
	if err := l.Write(context.Background(), Record{Object: "/kept"}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("a closed log was reopened")
	}
	data, err := os.ReadFile(filepath.Join(moved, "audit.log"))
	if err != nil || !bytes.Contains(data, []byte("/kept")) {
		t.Errorf("the line is not in the old file: %s, %v", data, err)
	}
}
