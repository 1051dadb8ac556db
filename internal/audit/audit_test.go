package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func testClock() time.Time { return time.Unix(1_700_000_000, 0) }

func TestRecordIsOneJSONLine(t *testing.T) {
	var out bytes.Buffer
	l := New(&out, Options{Now: testClock})
	ctx := WithRequest(context.Background(), &Request{ID: "r1", CorrelationID: "c1", RemoteAddr: "10.0.0.1"})
	hostile := "a\"b\\c\nd\u2028é\x00\xff\U0001F600\u0085"
	rec := Record{Plane: "vault", Operation: "SecretGet", Object: "/subscriptions/x", Decision: Deny, Reason: hostile,
		Via: "v", Principal: Principal{ObjectID: "o", AppID: "a", TenantID: "t", Name: "n"}}
	if err := l.Write(ctx, rec); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Fatalf("a hostile reason made %d lines: %q", n, out.String())
	}
	var got map[string]string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	want := map[string]string{
		"time": "2023-11-14T22:13:20.000000Z", "plane": "vault", "operationName": "SecretGet", "resourceId": "/subscriptions/x",
		"decision": "deny", "via": "v", "oid": "o", "appid": "a", "tid": "t", "name": "n",
		"callerIpAddress": "10.0.0.1", "requestId": "r1", "correlationId": "c1",
		"reason": "a\"b\\c\nd\u2028é\x00\ufffd\U0001F600\u0085",
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s = %q, want %q", k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("members %v, want %v", got, want)
	}
}

func TestConcurrentWritersAllLand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 32, 100
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := l.Write(context.Background(), Record{Object: fmt.Sprintf("%d-%d", w, i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if fi, _ := f.Stat(); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", fi.Mode().Perm())
	}
	seen := map[string]bool{}
	for s := bufio.NewScanner(f); s.Scan(); {
		var rec struct{ ResourceID string }
		if err := json.Unmarshal(s.Bytes(), &rec); err != nil {
			t.Fatalf("%v in %q", err, s.Text())
		}
		seen[rec.ResourceID] = true
	}
	if len(seen) != writers*each {
		t.Errorf("%d distinct lines, want %d", len(seen), writers*each)
	}
	if err := l.Write(context.Background(), Record{}); err == nil {
		t.Error("a write after Close succeeded")
	}
}

// failing writes n times and then fails for ever.
type failing struct{ n int }

func (f *failing) Write(p []byte) (int, error) {
	if f.n--; f.n < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func TestFailedWriteRefusesEverythingAfter(t *testing.T) {
	l := New(&failing{n: 1}, Options{})
	if err := l.Write(context.Background(), Record{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Write(context.Background(), Record{}); err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("err = %v, want disk full", err)
		}
	}
}

type synced struct {
	bytes.Buffer
	syncs int
	err   error
}

func (s *synced) Sync() error { s.syncs++; return s.err }

func TestSyncEach(t *testing.T) {
	var s synced
	l := New(&s, Options{SyncEach: true})
	for i := range 3 {
		if err := l.Write(context.Background(), Record{}); err != nil {
			t.Fatal(err)
		}
		if s.syncs != i+1 {
			t.Fatalf("%d syncs after %d writes", s.syncs, i+1)
		}
	}
}

func TestFailedSyncBreaksTheLog(t *testing.T) {
	s := synced{err: errors.New("io error")}
	l := New(&s, Options{})
	if err := l.Write(context.Background(), Record{}); err != nil {
		t.Fatal(err)
	}
	if err := l.Sync(); err == nil {
		t.Fatal("Sync hid the error")
	}
	if err := l.Write(context.Background(), Record{}); err == nil {
		t.Error("a write after a failed sync succeeded")
	}
}

func TestCutOffLineDoesNotSpoilTheNext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, []byte("{\"time\":\"20"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l, err := Open(path, Options{Now: testClock})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Write(context.Background(), Record{Operation: "x"}); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(lines) != 3 || !json.Valid([]byte(lines[1])) || !json.Valid([]byte(lines[2])) {
		t.Errorf("%q", lines)
	}
}

func TestFailedWriteStopsTheServer(t *testing.T) {
	l := New(&failing{}, Options{})
	done := make(chan error, 1)
	go func() { done <- l.Run(context.Background()) }()
	if err := l.Write(context.Background(), Record{}); err == nil {
		t.Fatal("the write succeeded")
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("Run: %v", err)
	}
}
