package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

// secret is about 1 KiB when stored.
type secret struct {
	Value   string
	Created time.Time
	Tags    map[string]string
}

func newSecret() secret {
	return secret{Value: strings.Repeat("s3cret/+", 112), Created: time.Unix(1_700_000_000, 0).UTC(), Tags: map[string]string{"team": "payments"}}
}

// fill puts n records into a table, under keys of a plausible length.
func fill[T any](b testing.TB, s *store.Store, table *store.Table[T], n int, record func(i int) T) (keys []string) {
	b.Helper()
	const batch = 40
	for from := 0; from < n; from += batch {
		err := s.Update(b.Context(), func(tx *store.Tx) error {
			keys = keys[:from]
			for i := from; i < min(from+batch, n); i++ {
				keys = append(keys, store.Key("vault-"+strconv.Itoa(i%100), "secret-"+strconv.Itoa(i)))
				if err := table.Put(tx, keys[i], record(i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return keys
}

func BenchmarkLoad(b *testing.B) {
	for _, mode := range []store.Mode{store.Plain, store.Sealed, store.Disk} {
		for _, n := range []int{1_000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", []string{"sealed", "plain", "disk"}[mode], n), func(b *testing.B) {
				var table *store.Table[secret]
				s := storetest.New(b, "", func(s *store.Store) {
					table = store.NewTable[secret](s, "secret", store.TableOptions[secret]{Mode: mode})
				})
				keys := fill(b, s, table, n, func(int) secret { return newSecret() })
				ctx := b.Context()
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					if _, ok, err := table.Load(ctx, keys[i]); !ok || err != nil {
						b.Fatal(ok, err)
					}
					i = (i + 7919) % n
				}
			})
		}
	}
}

func BenchmarkFind(b *testing.B) {
	type assignment struct{ Principal, Scope, Role string }
	for _, n := range []int{1_000, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var table *store.Table[assignment]
			s := storetest.New(b, "", func(s *store.Store) {
				table = store.NewTable[assignment](s, "assignment", store.TableOptions[assignment]{
					Mode:    store.Plain,
					Indexes: map[string]func(*assignment) []string{"principal": func(a *assignment) []string { return []string{a.Principal} }},
				})
			})
			principal := func(i int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", i/4) }
			fill(b, s, table, n, func(i int) assignment {
				return assignment{principal(i), "/subscriptions/s/resourceGroups/g", "reader"}
			})
			ctx := b.Context()
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				if as, err := table.Find(ctx, "principal", principal(i)); len(as) != 4 || err != nil {
					b.Fatal(len(as), err)
				}
				i = (i + 7919) % n
			}
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(strconv.Itoa(clients), func(b *testing.B) {
			var table *store.Table[secret]
			s := storetest.New(b, "", func(s *store.Store) {
				table = store.NewTable[secret](s, "secret", store.TableOptions[secret]{})
			})
			keys := fill(b, s, table, 1_000, func(int) secret { return newSecret() })
			ctx := b.Context()
			b.ReportAllocs()
			b.SetParallelism((clients + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			update := func(i int) {
				err := s.Update(ctx, func(tx *store.Tx) error {
					v, _, err := table.Get(tx, keys[i%len(keys)])
					if err != nil {
						return err
					}
					return table.Put(tx, keys[i%len(keys)], v)
				})
				if err != nil {
					b.Error(err)
				}
			}
			if clients == 1 {
				for i := range b.N {
					update(i * 7919)
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for i := int(time.Now().UnixNano()); pb.Next(); i += 7919 {
					update(i)
				}
			})
		})
	}
}

// BenchmarkAtRest reports what a store costs that does nothing, in a process
// of its own: how long it takes to open, resident memory (rss, of which anon
// is not mapped from files), the Go heap, processor time, and the files.
func BenchmarkAtRest(b *testing.B) {
	for _, n := range []int{0, 1_000, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			dir := b.TempDir()
			var table *store.Table[secret]
			s, err := storetest.Open(b, dir)
			if err != nil {
				b.Fatal(err)
			}
			stop := storetest.Start(b, s, func(s *store.Store) { table = newSecretTable(s) })
			fill(b, s, table, n, func(int) secret { return newSecret() })
			stop()
			out, err := child("rest", dir).Output()
			if err != nil {
				b.Fatal(err)
			}
			for _, field := range strings.Fields(string(out)) {
				name, value, _ := strings.Cut(field, "=")
				v, err := strconv.ParseFloat(value, 64)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(v, name)
			}
			b.ReportMetric(0, "ns/op")
			disk := int64(0)
			filepath.Walk(dir, func(_ string, fi os.FileInfo, err error) error {
				if err == nil {
					disk += fi.Size()
				}
				return nil
			})
			b.ReportMetric(float64(disk)/1e6, "disk-MB")
		})
	}
}

func newSecretTable(s *store.Store) *store.Table[secret] {
	return store.NewTable[secret](s, "secret", store.TableOptions[secret]{})
}

// childRest opens the store in dir and prints what it costs.
func childRest(ctx context.Context, dir string) error {
	start := time.Now()
	s, err := store.Open(ctx, store.Options{
		Dir: filepath.Join(dir, "etcd"), KEK: store.KEKInFile(filepath.Join(dir, "kek.json")), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	opened := time.Since(start)
	newSecretTable(s)
	if err := s.Load(ctx); err != nil {
		return err
	}
	ready := time.Since(start)
	go s.Run(ctx)
	rest := 5 * time.Second
	time.Sleep(2 * time.Second)
	before := cpuTime()
	time.Sleep(rest)
	used := cpuTime() - before
	var m runtime.MemStats
	rss, anon := procStatus("VmRSS:"), procStatus("RssAnon:")
	runtime.GC()
	runtime.ReadMemStats(&m)
	fmt.Printf("ms-to-open=%d ms-to-ready=%d rss-MB=%.1f anon-MB=%.1f heap-MB=%.1f cpu-%%=%.2f\n",
		opened.Milliseconds(), ready.Milliseconds(), rss/1e3, anon/1e3, float64(m.HeapAlloc)/1e6, 100*used.Seconds()/rest.Seconds())
	return nil
}

// cpuTime returns the processor time that this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// procStatus returns a field of /proc/self/status, in kB; 0 where there is none.
func procStatus(field string) float64 {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if fs := strings.Fields(line); len(fs) == 3 && fs[0] == field {
			n, _ := strconv.ParseFloat(fs[1], 64)
			return n
		}
	}
	return 0
}
