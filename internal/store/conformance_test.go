package store_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

func TestConformanceEmbedded(t *testing.T) {
	t.Parallel()
	storetest.Conformance(t, func(t testing.TB, declare func(*store.Store)) *store.Store {
		return storetest.New(t, "", declare)
	})
}

func TestConformanceExternal(t *testing.T) {
	t.Parallel()
	etcd := storetest.NewEtcd(t)
	var n atomic.Int64
	storetest.Conformance(t, func(t testing.TB, declare func(*store.Store)) *store.Store {
		s, err := etcd.Open(t, t.TempDir(), fmt.Sprintf("podkey-%d/", n.Add(1)))
		if err != nil {
			t.Fatal(err)
		}
		storetest.Start(t, s, declare)
		return s
	})
}
