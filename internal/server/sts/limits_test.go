package sts

import (
	"fmt"
	"testing"
	"time"
)

func TestBucketsForget(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	b := &buckets{size: 2, every: time.Minute}
	for i, want := range []bool{true, true, false} {
		if wait, ok := b.take("k", now); ok != want || !ok && wait != time.Minute {
			t.Errorf("%d: %v %v", i, ok, wait)
		}
	}
	if _, ok := b.take("k", now.Add(time.Minute)); !ok {
		t.Error("no token came back")
	}
	b.giveBack("k", now.Add(time.Minute))
	b.giveBack("k", now.Add(time.Minute))
	b.giveBack("k", now.Add(time.Minute)) // never more than full
	for i, want := range []bool{true, true, false} {
		if _, ok := b.take("k", now.Add(time.Minute)); ok != want {
			t.Errorf("%d: %v", i, ok)
		}
	}
	// A clock that goes back gives nothing.
	if _, ok := b.take("k", now); ok {
		t.Error("a token from the past")
	}
	// Memory is bounded; buckets that are full again go first.
	for i := range maxBuckets - 1 {
		b.take(fmt.Sprint(i), now)
	}
	late := now.Add(90 * time.Second)
	b.take("new", late)
	if len(b.held) > 2 || b.held["k"] == nil {
		t.Errorf("%d buckets are held", len(b.held))
	}
	for i := range 3 * maxBuckets {
		b.take(fmt.Sprint(i), late)
	}
	if len(b.held) > maxBuckets {
		t.Errorf("%d buckets are held", len(b.held))
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64", "nonsense": "nonsense", "": "",
	} {
		if got := network(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}
