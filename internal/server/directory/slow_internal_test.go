package directory

import (
	"context"
	"testing"

	"github.com/podkey/podkey/internal/fault"
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
	full := func() bool { q.mu.Lock(); defer q.mu.Unlock(); return q.byHash["victim"] == slowWaitingOne }
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
	if q.byHash["other"] != 0 {
		t.Error("who gave up is still counted")
	}
	cancel()
	for range slowWaitingOne - slowAtOnce {
		if err := <-ended; err == nil {
			t.Error("a cancelled guess was computed")
		}
	}
	if q.waiting != slowAtOnce || q.byHash["victim"] != slowAtOnce {
		t.Errorf("counted %d and %v", q.waiting, q.byHash)
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
	verify := func(text string) (bool, error) { return d.slowVerify(t.Context(), hash, text) }
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
	if ok, err := d.slowVerify(ctx, hash, "wrong"); ok || err == nil {
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
