package directory

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

// TestGuessesDoNotShutOutOthers: an attacker who guesses at one secret with
// many requests at once gets a bounded share of the queue.
func TestGuessesDoNotShutOutOthers(t *testing.T) {
	q := newSlowQueue()
	for range slowAtOnce { // two guesses are being computed
		if _, err := q.enter(t.Context(), "victim"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	for range slowWaitingOne - slowAtOnce { // as many more as may wait
		go func() {
			_, err := q.enter(ctx, "victim")
			ended <- err
		}()
	}
	full := func() bool { q.mu.Lock(); defer q.mu.Unlock(); return q.about["victim"] == slowWaitingOne }
	for !full() { // each goroutine counts itself before it waits
	}
	if _, err := q.enter(t.Context(), "victim"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("one guess too many: %v", err)
	}
	// Somebody else still gets a place: it waits until its own patience ends.
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := q.enter(gone, "other"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("other: %v", err)
	}
	if q.about["other"] != 0 {
		t.Error("who gave up is still counted")
	}
	cancel()
	for range slowWaitingOne - slowAtOnce {
		if err := <-ended; err == nil {
			t.Error("a cancelled guess was computed")
		}
	}
	if q.waiting != slowAtOnce || q.about["victim"] != slowAtOnce {
		t.Errorf("counted %d and %v", q.waiting, q.about)
	}
}

// TestRightSecretIsRemembered: a client with a chosen secret does not queue
// behind guesses once it has been right.
func TestRightSecretIsRemembered(t *testing.T) {
	d := &Directory{slow: newSlowQueue()}
	hash, err := d.slowHash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	verify := func(text string) (bool, error) { return d.slowVerify(t.Context(), "one", hash, text) }
	if ok, err := verify("correct horse"); err != nil || !ok {
		t.Fatalf("%v %v", ok, err)
	}
	for range slowAtOnce {
		d.slow.slots <- struct{}{} // from now on, whoever computes waits for ever
	}
	if ok, err := verify("correct horse"); err != nil || !ok {
		t.Errorf("again: %v %v", ok, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ok, err := d.slowVerify(ctx, "one", hash, "wrong"); ok || err == nil {
		t.Errorf("wrong: %v %v", ok, err)
	}
	other, err := (&Directory{slow: newSlowQueue()}).slowHash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if d.slow.known(d.slow.mark(other, "correct horse")) {
		t.Error("remembered for another hash of the same text")
	}
}

// TestAttackNamesUnderLoad: how many guesses at once are turned away does not
// tell who has an account: neither guesses at one name nor at many.
func TestAttackNamesUnderLoad(t *testing.T) {
	const tenant, guesses = "11111111-1111-4111-8111-111111111111", 10
	var d *Directory
	storetest.New(t, "", func(s *store.Store) { d = New(s, Options{}) })
	if _, err := d.CreateTenant(t.Context(), Tenant{ID: tenant, Domains: []string{"contoso.example"}}); err != nil {
		t.Fatal(err)
	}
	for i := range guesses {
		if _, err := d.CreateUser(t.Context(), User{TenantID: tenant, UserPrincipalName: fmt.Sprintf("known%d@contoso.example", i)}, "correct horse"); err != nil {
			t.Fatal(err)
		}
	}
	for range slowAtOnce {
		d.slow.slots <- struct{}{} // the server is busy: whoever has a turn to wait for, waits
	}
	turnedAway := func(name func(i int) string) int {
		ctx, cancel := context.WithCancel(t.Context())
		var away atomic.Int32
		ended := make(chan error)
		for i := range guesses {
			go func() {
				_, _, err := d.VerifyPassword(ctx, tenant, name(i), "a wrong guess")
				if ctx.Err() == nil {
					away.Add(1)
				}
				ended <- err
			}()
		}
		waiting := func() int { d.slow.mu.Lock(); defer d.slow.mu.Unlock(); return d.slow.waiting }
		for waiting()+int(away.Load()) < guesses {
			runtime.Gosched()
		}
		n := int(away.Load())
		cancel()
		for range guesses {
			if err := <-ended; !fault.Is(err, fault.Unavailable) {
				t.Errorf("%v", err)
			}
		}
		return n
	}
	for _, c := range []struct {
		what string
		name func(who string, i int) string
		want int
	}{
		{"one name", func(who string, i int) string { return who + "0@contoso.example" }, guesses - slowWaitingOne},
		{"one name in two spellings", func(who string, i int) string {
			return []string{who, strings.ToUpper(who)}[i%2] + "0@contoso.example"
		}, guesses - slowWaitingOne},
		{"many names", func(who string, i int) string { return fmt.Sprintf("%s%d@contoso.example", who, i) }, 0},
	} {
		for _, who := range []string{"known", "nobody"} {
			if n := turnedAway(func(i int) string { return c.name(who, i) }); n != c.want {
				t.Errorf("%s, %s: %d of %d turned away, want %d", c.what, who, n, guesses, c.want)
			}
		}
	}
}
