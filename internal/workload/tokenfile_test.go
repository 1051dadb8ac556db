package workload_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podkey/podkey/internal/workload"
)

// mint is a Fetch whose tokens are numbered.
type mint struct {
	life time.Duration

	mu  sync.Mutex
	n   int
	err error
}

func (m *mint) fetch(context.Context) (string, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	return fmt.Sprintf("token-%d", m.n), time.Now().Add(m.life), m.err
}

// fail makes fetch fail from now on, or work again.
func (m *mint) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// calls is how often fetch was called.
func (m *mint) calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n
}

func content(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTokenFileRefreshes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens", "azure-identity-token")
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		m := &mint{life: time.Hour}
		f := &workload.TokenFile{Path: path, Fetch: m.fetch}
		if err := f.Write(ctx); err != nil {
			t.Fatal(err)
		}
		if got := content(t, path); got != "token-1" {
			t.Errorf("the file has %q", got)
		}
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()

		time.Sleep(48*time.Minute - time.Second)
		synctest.Wait()
		if got := content(t, path); got != "token-1" {
			t.Errorf("replaced before 80 %% of its life by %q", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := content(t, path); got != "token-2" {
			t.Errorf("after 80 %% of its life the file has %q", got)
		}
		time.Sleep(48 * time.Minute)
		synctest.Wait()
		if got := content(t, path); got != "token-3" {
			t.Errorf("after the second life the file has %q", got)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestTokenFileRetries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		m := &mint{life: 10 * time.Minute}
		f := &workload.TokenFile{Path: path, Fetch: m.fetch, Log: slog.New(slog.NewTextHandler(&log, nil))}
		if err := f.Write(t.Context()); err != nil {
			t.Fatal(err)
		}
		go f.Run(t.Context())

		m.fail(errors.New("no server"))
		// pauses waits for the next n calls and lists the time before each.
		pauses := func(n int) string {
			last, seen, out := time.Now(), m.calls(), []time.Duration{}
			for ; len(out) < n; time.Sleep(100 * time.Millisecond) {
				synctest.Wait()
				if c := m.calls(); c > seen {
					seen = c
					out = append(out, time.Since(last).Round(time.Second))
					last = time.Now()
				}
			}
			return fmt.Sprint(out)
		}
		if got, want := pauses(8), "[8m0s 1s 2s 4s 8s 16s 30s 30s]"; got != want {
			t.Errorf("pauses before the tries %v, want %v", got, want)
		}
		if got := content(t, path); got != "token-1" {
			t.Errorf("while refreshing fails the file has %q", got)
		}
		m.fail(nil)
		if got, want := pauses(1), "[30s]"; got != want {
			t.Errorf("pause before the try that succeeds %v, want %v", got, want)
		}
		if got, want := content(t, path), fmt.Sprintf("token-%d", m.calls()); got != want || got == "token-1" {
			t.Errorf("after the server came back the file has %q, want %q", got, want)
		}
		// The next failure begins with a short pause again.
		m.fail(errors.New("no server"))
		if got, want := pauses(3), "[8m0s 1s 2s]"; got != want {
			t.Errorf("after a success, pauses %v, want %v", got, want)
		}
		if out := log.String(); !strings.Contains(out, "no server") || strings.Contains(out, "token-") {
			t.Errorf("log:\n%s", out)
		}
	})
}

// After a laptop has slept for hours, the token is replaced within seconds,
// though the timer that was set before has hours to go.
func TestTokenFileAfterSleep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d", "token")
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		slept := time.Duration(0)
		now := func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(slept)
		}
		n := 0
		f := &workload.TokenFile{Path: path, Now: now, Fetch: func(context.Context) (string, time.Time, error) {
			n++
			return fmt.Sprintf("token-%d", n), now().Add(10 * time.Hour), nil
		}}
		if err := f.Write(t.Context()); err != nil {
			t.Fatal(err)
		}
		go f.Run(t.Context())
		synctest.Wait()
		mu.Lock()
		slept = 9 * time.Hour
		mu.Unlock()
		time.Sleep(16 * time.Second)
		synctest.Wait()
		if got := content(t, path); got != "token-2" {
			t.Errorf("the file has %q", got)
		}
	})
}

// A server that accepts the question and never answers costs a minute, not
// the life of the token.
func TestTokenFileHangingFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &workload.TokenFile{Path: "/nowhere/token", Fetch: func(ctx context.Context) (string, time.Time, error) {
			<-ctx.Done()
			return "", time.Time{}, ctx.Err()
		}}
		began := time.Now()
		if err := f.Write(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestTokenFileRefuses(t *testing.T) {
	private := filepath.Join(t.TempDir(), "private")
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	target, link := filepath.Join(t.TempDir(), "target"), filepath.Join(t.TempDir(), "link")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	for name, tt := range map[string]struct {
		dir, token string
		expires    time.Time
		err        error
	}{
		"failed fetch":                   {private, "t", later, errors.New("no")},
		"no token":                       {private, "", later, nil},
		"a line too many":                {private, "t\n", later, nil},
		"expired already":                {private, "t", time.Now(), nil},
		"directory open to others":       {open, "t", later, nil},
		"directory that is a link":       {link, "t", later, nil},
		"directory that cannot be there": {"/dev/null/x", "t", later, nil},
	} {
		f := &workload.TokenFile{
			Path:  filepath.Join(tt.dir, "token"),
			Fetch: func(context.Context) (string, time.Time, error) { return tt.token, tt.expires, tt.err },
		}
		if err := f.Write(t.Context()); err == nil || tt.err != nil && !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v", name, err)
		}
		if _, err := os.Lstat(f.Path); err == nil {
			t.Errorf("%s: a token was written", name)
		}
	}
}

// The file is private, never half written, and a link that waits at its path
// is replaced, not followed.
func TestTokenFileIsPrivateAndWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	path := filepath.Join(dir, "token")
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	long := [2]string{strings.Repeat("a", 100_000), strings.Repeat("b", 50_000)}
	n := 0
	f := &workload.TokenFile{Path: path, Fetch: func(context.Context) (string, time.Time, error) {
		n++
		return long[n%2], time.Now().Add(time.Hour), nil
	}}
	if err := f.Write(t.Context()); err != nil {
		t.Fatal(err)
	}
	if content(t, victim) != "mine" {
		t.Error("the link was followed")
	}
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}

	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if got := content(t, path); got != long[0] && got != long[1] {
				t.Errorf("a reader saw %d bytes", len(got))
				return
			}
		}
	})
	for range 50 {
		if err := f.Write(t.Context()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("the directory has %v, %v", left, err)
	}
}
