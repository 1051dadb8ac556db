package store

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Reads of Disk tables are as of the revision of a state, like all others:
// who has seen a write in one table sees it in every other. A state of the
// past may have been compacted away; then the reader begins again with a
// newer one.

// maxRewinds bounds how often a reader begins again.
const maxRewinds = 5

// get reads from etcd as of revision rev. What was true then does not change,
// so any member that has come so far may answer, without asking the others.
func (s *Store) get(ctx context.Context, rev int64, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	opts = append(opts, clientv3.WithRev(rev))
	got, err := s.client.Get(ctx, key, append(opts, clientv3.WithSerializable())...)
	if errors.Is(err, rpctypes.ErrFutureRev) {
		got, err = s.client.Get(ctx, key, opts...)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	return got, nil
}

// readDisk reads one record as of revision rev; mod is the revision of its
// last change, 0 if there is none.
func (t *Table[T]) readDisk(ctx context.Context, key string, rev int64) (v T, mod int64, ok bool, err error) {
	got, err := t.s.get(ctx, rev, t.prefix+key)
	if err != nil {
		return v, 0, false, err
	}
	if len(got.Kvs) == 0 {
		t.s.damage.mended(t.tableDef, key)
		return v, 0, false, nil
	}
	v, err = t.openDisk(key, got.Kvs[0])
	return v, got.Kvs[0].ModRevision, err == nil, err
}

func (t *Table[T]) openDisk(key string, kv *mvccpb.KeyValue) (v T, err error) {
	if v, err = t.open(key, kv.Value, kv.ModRevision); err == nil {
		t.s.damage.mended(t.tableDef, key)
	}
	return v, err
}

// scanDisk lists records as of revision rev.
func (t *Table[T]) scanDisk(ctx context.Context, prefix, after string, limit int, rev int64) ([]Entry[T], error) {
	const page = 1000
	from, end := t.prefix+scanFrom(prefix, after), clientv3.GetPrefixRangeEnd(t.prefix+prefix)
	es := []Entry[T]{}
	for from < end {
		n := page
		if limit > 0 {
			n = min(page, limit-len(es))
		}
		got, err := t.s.get(ctx, rev, from, clientv3.WithRange(end), clientv3.WithLimit(int64(n)))
		if err != nil {
			return nil, err
		}
		for _, kv := range got.Kvs {
			e := Entry[T]{Key: strings.TrimPrefix(string(kv.Key), t.prefix)}
			e.Value, e.Err = t.openDisk(e.Key, kv)
			es = append(es, e)
		}
		if !got.More || len(es) == limit {
			break
		}
		from = string(got.Kvs[len(got.Kvs)-1].Key) + "\x00"
	}
	return es, nil
}
