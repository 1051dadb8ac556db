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

// One password, many names, from one address; and many addresses, one name.
func TestAttackSprayingIsLimited(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	tries := func(l *limits, name, from func(i int) string) int {
		for i := range 1000 {
			if _, err := l.guess(name(i), from(i), now); err != nil {
				return i
			}
		}
		return 1000
	}
	one := func(s string) func(int) string { return func(int) string { return s } }
	names := func(i int) string { return fmt.Sprintf("u%d@contoso.example", i) }
	addresses := func(i int) string { return fmt.Sprintf("198.51.%d.%d", i/250, i%250) }
	if n := tries(newLimits(), names, one("192.0.2.1")); n != 60 {
		t.Errorf("%d names from one address", n)
	}
	if n := tries(newLimits(), one("Ada@contoso.example"), addresses); n != 40 {
		t.Errorf("%d addresses at one name", n)
	}
	l := newLimits()
	if n := tries(l, func(i int) string { return []string{"ada@contoso.example", "ADA@contoso.example"}[i%2] }, one("192.0.2.1")); n != 8 {
		t.Errorf("%d tries at one name in two spellings", n)
	}
	// What was refused for one limit is not counted against the others, and a
	// right password against none.
	right, err := l.guess("ada@contoso.example", "192.0.2.2", now)
	if err != nil {
		t.Fatal(err)
	}
	right()
	if n := tries(l, one("ada@contoso.example"), addresses); n != 32 {
		t.Errorf("%d tries are left", n)
	}
}

// Who exhausts the device codes of all does not shut people out of the outside
// provider.
func TestAttackBegunKindsAreApart(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	l := newLimits()
	n := 0
	for ; n < 1000; n++ {
		if l.devices.begin(fmt.Sprintf("198.51.%d.%d", n/250, n%250), now) != nil {
			break
		}
	}
	if n != 600 {
		t.Errorf("%d device codes", n)
	}
	if err := l.outside.begin("192.0.2.1", now); err != nil {
		t.Errorf("an outside sign-in: %v", err)
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
