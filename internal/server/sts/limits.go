package sts

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// limits bound what people, and programs that pretend to be people, may try.
//
// They are in the memory of each server. In the store every guess would be a
// write, and guessing would be a way to fill it. So several servers together
// allow as many times more; each guess still costs an Argon2id, of which few
// run at once.
//
// A wrong password counts against the user, the address and the pair of them.
// The pair is the tightest by far, and a pair that was right lately does not
// count against the user at all: a stranger with many addresses can use up what
// is left for a name, but does not lock the person out where the person is.
// The user is counted whether it exists or not.
//
// What remains is a stranger at the person's own address, who can use up the
// pair, and can tell the person's name from others: once what is left for a
// name is used up from elsewhere, a try from there is looked at all the same
// only if somebody of that name was right there.
type limits struct {
	pair    buckets // wrong passwords of one user name from one address
	user    buckets // wrong passwords of one user name from all addresses that it is not at home at
	homes   homes
	address buckets // wrong passwords from one address: spraying
	code    buckets // wrong user codes from one address
	devices begun   // device codes
	outside begun   // sign-ins at the outside provider: those who exhaust one kind leave the other to people
}

// begun bounds what anybody may begin and the store remembers.
type begun struct {
	address buckets // from one address
	all     buckets // from anywhere
}

func newBegun() begun {
	return begun{
		address: buckets{size: 60, every: time.Second},
		all:     buckets{size: 600, every: 100 * time.Millisecond},
	}
}

func newLimits() *limits {
	return &limits{
		pair:    buckets{size: 8, every: 30 * time.Second},
		user:    buckets{size: 200, every: 5 * time.Second}, // so some 17,000 guesses a day at one password, from however many addresses
		address: buckets{size: 60, every: 3 * time.Second},
		code:    buckets{size: 10, every: 6 * time.Second},
		devices: newBegun(),
		outside: newBegun(),
	}
}

// buckets are token buckets by key. The zero key is a key like others.
type buckets struct {
	size  float64       // of a full bucket
	every time.Duration // in which one token comes back

	mu   sync.Mutex
	held map[string]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// maxBuckets bounds the memory of one kind of limit. When there are more keys
// than that within the time in which a bucket fills, all are forgotten: who
// can afford so many tries gains one bucket by it.
const maxBuckets = 20_000

// take takes a token. If there is none it says how long until there is one.
func (b *buckets) take(key string, now time.Time) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.at(key, now)
	if k.tokens < 1 {
		return time.Duration(math.Ceil((1-k.tokens)*b.every.Seconds())) * time.Second, false
	}
	k.tokens--
	return 0, true
}

// giveBack returns a token that was not needed.
func (b *buckets) giveBack(key string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.at(key, now)
	k.tokens = min(k.tokens+1, b.size)
}

// at returns a key's bucket as it is now. mu is held.
func (b *buckets) at(key string, now time.Time) *bucket {
	k := b.held[key]
	if k == nil {
		if len(b.held) >= maxBuckets {
			b.forget(now)
		}
		if b.held == nil {
			b.held = map[string]*bucket{}
		}
		k = &bucket{tokens: b.size, at: now}
		b.held[key] = k
	}
	if past := now.Sub(k.at); past > 0 {
		k.tokens, k.at = min(k.tokens+past.Seconds()/b.every.Seconds(), b.size), now
	}
	return k
}

// forget drops the buckets that are full again, or all if none is.
func (b *buckets) forget(now time.Time) {
	for key, k := range b.held {
		if k.tokens+now.Sub(k.at).Seconds()/b.every.Seconds() >= b.size {
			delete(b.held, key)
		}
	}
	if len(b.held) >= maxBuckets {
		clear(b.held)
	}
}

// guess counts a password that is about to be tried. undo takes that back, for
// one that was not looked at; right does so for one that was right, and makes
// the user at home there.
func (l *limits) guess(user, remote string, now time.Time) (right, undo func(), err error) {
	from := network(remote)
	user = strings.ToLower(user)
	type count struct {
		b   *buckets
		key string
	}
	counts := []count{{&l.address, from}, {&l.pair, from + " " + user}}
	if !l.homes.has(user, from, now) {
		counts = append(counts, count{&l.user, user})
	}
	giveBack := func(n int) {
		for _, c := range counts[:n] {
			c.b.giveBack(c.key, now)
		}
	}
	for i, c := range counts {
		if wait, ok := c.b.take(c.key, now); !ok {
			giveBack(i)
			return nil, nil, errTooManyGuesses(wait)
		}
	}
	undo = func() { giveBack(len(counts)) }
	return func() { undo(); l.homes.add(user, from, now) }, undo, nil
}

// homes are the addresses at which users have lately been right.
type homes struct {
	mu   sync.Mutex
	held map[string][]home // by user, the latest last
}

type home struct {
	network string
	at      time.Time
}

// The limits of homes. Only who has a password adds one, and only to its own
// user's.
const (
	homeLife = 30 * 24 * time.Hour
	maxHomes = 8
)

func (h *homes) has(user, network string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.held[user], func(o home) bool { return o.network == network && now.Sub(o.at) < homeLife })
}

func (h *homes) add(user, network string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held == nil {
		h.held = map[string][]home{}
	}
	of := slices.DeleteFunc(h.held[user], func(o home) bool { return o.network == network || now.Sub(o.at) >= homeLife })
	if len(of) >= maxHomes {
		of = slices.Delete(of, 0, len(of)-maxHomes+1)
	}
	h.held[user] = append(of, home{network, now})
	if len(h.held) > maxBuckets { // users that have not been here for long go first
		for u, of := range h.held {
			if now.Sub(of[len(of)-1].at) >= homeLife {
				delete(h.held, u)
			}
		}
		if len(h.held) > maxBuckets {
			clear(h.held)
		}
	}
}

// begin counts one.
func (b *begun) begin(remote string, now time.Time) error {
	from := network(remote)
	if wait, ok := b.address.take(from, now); !ok {
		return errThrottled(wait)
	}
	if wait, ok := b.all.take("", now); !ok {
		b.address.giveBack(from, now)
		return errThrottled(wait)
	}
	return nil
}

// network is what counts as one address: of IPv6 the 64 bits that one
// customer has at least.
func network(remote string) string {
	a, err := netip.ParseAddr(remote)
	if err != nil {
		return remote
	}
	if a = a.Unmap(); a.Is4() {
		return a.String()
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return remote
	}
	return p.String()
}
