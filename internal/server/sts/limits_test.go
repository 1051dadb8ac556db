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
			if _, _, err := l.guess(name(i), from(i), now); err != nil {
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
	if n := tries(newLimits(), one("Ada@contoso.example"), addresses); n != 200 {
		t.Errorf("%d addresses at one name", n)
	}
	l := newLimits()
	if n := tries(l, func(i int) string { return []string{"ada@contoso.example", "ADA@contoso.example"}[i%2] }, one("192.0.2.1")); n != 8 {
		t.Errorf("%d tries at one name in two spellings", n)
	}
	// What was refused for one limit is not counted against the others, and
	// neither a right password nor one that was not looked at against any. The
	// latter makes nobody at home.
	_, undo, err := l.guess("ada@contoso.example", "192.0.2.2", now)
	if err != nil {
		t.Fatal(err)
	}
	undo()
	if l.homes.has("ada@contoso.example", "192.0.2.2", now) {
		t.Error("at home by a password that was not looked at")
	}
	if n := tries(l, one("bob@contoso.example"), one("192.0.2.2")); n != 8 {
		t.Errorf("%d tries of another", n)
	}
	right, _, err := l.guess("ada@contoso.example", "192.0.2.2", now)
	if err != nil {
		t.Fatal(err)
	}
	right()
	if n := tries(l, one("ada@contoso.example"), addresses); n != 192 {
		t.Errorf("%d tries are left", n)
	}
}

// A stranger with many addresses uses up what a name has. The person signs in
// all the same from where the person signed in before, and the stranger guesses
// no more by that.
func TestAttackLockOut(t *testing.T) {
	t.Parallel()
	const ada, at = "ada@contoso.example", "192.0.2.1"
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	l := newLimits()
	ok := func(user, from string) bool { _, _, err := l.guess(user, from, now); return err == nil }
	right := func(user, from string) {
		t.Helper()
		r, _, err := l.guess(user, from, now)
		if err != nil {
			t.Fatalf("%s from %s: %v", user, from, err)
		}
		r()
	}
	flood := func(user string) (n int) {
		for i := range 3000 {
			if ok(user, fmt.Sprintf("198.51.%d.%d", i/250, i%250)) {
				n++
			}
		}
		return n
	}
	right("ADA@contoso.example", at)
	right(ada, "2001:db8:1:2::3")
	for range 100 {
		right(ada, at)
	}
	if n := flood(ada); n != 200 {
		t.Errorf("%d guesses", n)
	}
	if ok(ada, "203.0.113.1") {
		t.Error("a place where nobody was right is looked at")
	}
	right(ada, at)
	right(ada, "2001:db8:1:2:ffff::1")
	for i := range 9 { // at home, too, one can be wrong a few times only
		if ok(ada, at) != (i < 8) {
			t.Errorf("wrong at home, %d", i)
		}
	}
	if n := flood("bob@contoso.example"); n != 200 || ok("bob@contoso.example", at) {
		t.Errorf("%d guesses at another name, from Ada's home too", n)
	}
	now = now.Add(10 * time.Minute)
	if n := flood(ada); n != 120 {
		t.Errorf("%d guesses ten minutes later", n)
	}
	right(ada, at)
	// A place is at home for a month after it was right last.
	now = now.Add(homeLife)
	flood(ada)
	if ok(ada, at) {
		t.Error("at home for ever")
	}
	// How many places there are, and users who have some, is bounded.
	now = now.Add(time.Hour)
	for i := range 3 * maxHomes {
		right(ada, fmt.Sprintf("10.0.0.%d", i))
	}
	flood(ada)
	for i := range 3 * maxHomes {
		if ok(ada, fmt.Sprintf("10.0.0.%d", i)) != (i >= 2*maxHomes) {
			t.Errorf("place %d", i)
		}
	}
	for i := range maxBuckets + 5 {
		l.homes.add(fmt.Sprint(i), at, now)
	}
	if n := len(l.homes.held); n > maxBuckets {
		t.Errorf("%d users are held", n)
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
