package token

import (
	"context"
	"testing"
	"testing/synctest"
)

// TestSlowHostLeavesRoom fills one host's slots: others get theirs at once,
// and the host's next caller waits until one is given back.
func TestSlowHostLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(4, 2)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var releases []func()
		for _, host := range []string{"slow", "slow", "a", "b"} {
			release, ok := s.acquire(ctx, host)
			if !ok {
				t.Fatalf("no slot for %s", host)
			}
			releases = append(releases, release)
		}
		got := make(chan bool)
		go func() {
			release, ok := s.acquire(ctx, "slow")
			if ok {
				release()
			}
			got <- ok
		}()
		synctest.Wait()
		releases[2]() // room in all, but not for this host
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("a host has more than its slots")
		default:
		}
		releases[0]()
		if !<-got {
			t.Fatal("no slot after one was given back")
		}

		// All is full again: who waits gives up with its context and leaves nothing behind.
		for _, host := range []string{"c", "d"} {
			release, ok := s.acquire(ctx, host)
			if !ok {
				t.Fatalf("no slot for %s", host)
			}
			releases = append(releases, release)
		}
		go func() {
			_, ok := s.acquire(ctx, "e")
			got <- ok
		}()
		synctest.Wait()
		cancel()
		if <-got {
			t.Fatal("a slot beyond the limit")
		}
		for _, i := range []int{1, 3, 4, 5} {
			releases[i]()
		}
		if len(s.hosts) != 0 || len(s.all) != 0 {
			t.Errorf("%d hosts and %d slots are left over", len(s.hosts), len(s.all))
		}
	})
}
