package store_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

// TestWriteHereReadThere writes on one server and reads at once on another,
// which must see it, whichever way it reads.
func TestWriteHereReadThere(t *testing.T) {
	t.Parallel()
	etcd, dir := storetest.NewEtcd(t), t.TempDir()
	a, b := openShared(t, etcd, dir), openShared(t, etcd, dir)
	const pairs, each = 4, 300
	var wg sync.WaitGroup
	for p := range pairs {
		wg.Go(func() {
			key := fmt.Sprint("k", p)
			for i := range each {
				from, to := a, b
				if i%2 == 1 {
					from, to = b, a
				}
				v := note{Text: fmt.Sprint(key, i), N: i}
				err := from.Update(t.Context(), func(tx *store.Tx) error {
					return errors.Join(from.sealed.Put(tx, key, v), from.plain.Put(tx, key, v), from.disk.Put(tx, key, v))
				})
				if err != nil {
					t.Error(err)
					return
				}
				var got note
				var ok bool
				switch i % 5 {
				case 0:
					got, ok, err = to.sealed.Load(t.Context(), key)
				case 1:
					got, ok, err = to.disk.Load(t.Context(), key)
				case 2:
					var vs []note
					if vs, err = to.plain.Find(t.Context(), "text", v.Text); len(vs) == 1 {
						got, ok = vs[0], true
					}
				case 3:
					err = to.View(t.Context(), func(tx *store.Tx) (err error) {
						got, ok, err = to.sealed.Get(tx, key)
						return err
					})
				case 4:
					var es []store.Entry[note]
					if es, err = to.plain.Scan(t.Context(), key, "", 0); len(es) == 1 {
						got, ok = es[0].Value, true
					}
				}
				if got != v || !ok || err != nil {
					t.Errorf("wrote %+v, read %+v, %v, %v", v, got, ok, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestContentionOfTwoServers has both count with the same record.
func TestContentionOfTwoServers(t *testing.T) {
	t.Parallel()
	etcd, dir := storetest.NewEtcd(t), t.TempDir()
	servers := []*notes{openShared(t, etcd, dir), openShared(t, etcd, dir)}
	const workers, each = 3, 25
	var wg sync.WaitGroup
	for _, s := range servers {
		for range workers {
			wg.Go(func() {
				for range each {
					err := s.Update(t.Context(), func(tx *store.Tx) error {
						v, _, err := s.sealed.Get(tx, "n")
						if err != nil {
							return err
						}
						v.N++
						return s.sealed.Put(tx, "n", v)
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, s := range servers {
		if v, _, err := s.sealed.Load(t.Context(), "n"); v.N != 2*workers*each || err != nil {
			t.Errorf("n = %d, %v", v.N, err)
		}
	}
}

// TestFirstStartsAtOnce opens an empty store from several servers at once:
// they must agree on one keyring, and on one key-encryption key.
func TestFirstStartsAtOnce(t *testing.T) {
	t.Parallel()
	etcd := storetest.NewEtcd(t)
	for round := range 5 {
		dir, prefix := t.TempDir(), fmt.Sprintf("round%d/", round)
		servers := make([]*notes, 6)
		var wg sync.WaitGroup
		for i := range servers {
			wg.Go(func() {
				s, err := etcd.Open(t, dir, prefix)
				if err != nil {
					t.Error(err)
					return
				}
				servers[i] = &notes{dir: dir}
				servers[i].stop = storetest.Start(t, s, servers[i].declare)
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		for i, s := range servers {
			s.put(t, s.sealed, fmt.Sprint(i), note{N: i})
		}
		for _, s := range servers {
			if es, err := s.sealed.Scan(t.Context(), "", "", 0); len(es) != len(servers) || err != nil {
				t.Errorf("%d records, %v", len(es), err)
			} else {
				for _, e := range es {
					if e.Err != nil {
						t.Error(e.Err)
					}
				}
			}
			s.stop()
		}
	}
}

// TestQuestionsAreShared checks that readers who wait at the same time do not
// ask etcd one by one.
func TestQuestionsAreShared(t *testing.T) {
	t.Parallel()
	n := openShared(t, storetest.NewEtcd(t), t.TempDir())
	n.put(t, n.sealed, "k", note{N: 1})
	var asked atomic.Int64
	n.WrapKV(func(kv clientv3.KV) clientv3.KV {
		return &wrappedKV{KV: kv, get: func(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
			asked.Add(1)
			return kv.Get(ctx, key, opts...)
		}}
	})
	const readers, each = 50, 20
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			for range each {
				if _, ok, err := n.sealed.Load(t.Context(), "k"); !ok || err != nil {
					t.Error(ok, err)
				}
			}
		})
	}
	wg.Wait()
	if n := asked.Load(); n > readers*each/2 {
		t.Errorf("%d questions for %d reads", n, readers*each)
	}
}

// TestReadsWaitForEtcd checks that a server that cannot ask does not answer
// from memory, that a reader's own patience counts, and that the others get
// their answer when etcd is back.
func TestReadsWaitForEtcd(t *testing.T) {
	t.Parallel()
	n := openShared(t, storetest.NewEtcd(t), t.TempDir())
	n.put(t, n.sealed, "k", note{N: 1})
	back := make(chan struct{})
	n.WrapKV(func(kv clientv3.KV) clientv3.KV {
		return &wrappedKV{KV: kv, get: func(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
			select {
			case <-back:
				return kv.Get(ctx, key, opts...)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if v, ok, err := n.sealed.Load(ctx, "k"); ok || !fault.Is(err, fault.Unavailable) {
		t.Errorf("%+v, %v, %v", v, ok, err)
	}
	done := make(chan error)
	for range 3 {
		go func() {
			_, _, err := n.sealed.Load(t.Context(), "k")
			done <- err
		}()
	}
	close(back)
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestConnectionRefusals checks that what is wrong with a connection is said,
// and soon.
func TestConnectionRefusals(t *testing.T) {
	t.Parallel()
	etcd := storetest.NewEtcd(t)
	other := storetest.NewCA(t)
	right, wrongCA := etcd.CA.ClientTLS(t), other.ClientTLS(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for _, c := range []struct {
		name      string
		endpoints []string
		tls       *tls.Config
		want      string
	}{
		{"certificate of another CA", etcd.Endpoints, &tls.Config{RootCAs: right.RootCAs, Certificates: wrongCA.Certificates}, "certificate"},
		{"no certificate", etcd.Endpoints, &tls.Config{RootCAs: right.RootCAs}, "certificate"},
		{"server of another CA", etcd.Endpoints, wrongCA, "certificate signed by unknown authority"},
		{"nobody there", []string{"https://127.0.0.1:1"}, right, "connection refused"},
		{"nobody answers", []string{"https://" + silent.Addr().String()}, right, "deadline exceeded"},
		{"no TLS", etcd.Endpoints, nil, "TLS is required"},
		{"plain text", []string{strings.Replace(etcd.Endpoints[0], "https", "http", 1)}, right, "is not an https URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			start := time.Now()
			s, err := store.Open(t.Context(), store.Options{
				Endpoints: c.endpoints, TLS: c.tls, DialTimeout: 300 * time.Millisecond,
				KEK: store.KEKInFile(filepath.Join(dir, "kek.json")), Log: storetest.Log(t),
			})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "connect to etcd") {
				t.Errorf("err = %v", err)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			if _, err := os.Stat(filepath.Join(dir, "kek.json")); err == nil {
				t.Error("a key was made for a store that was not opened")
			}
		})
	}
}
