package store

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestBarrierAnswersAreFresh checks, with readers that come and give up at
// random, that an answer is never to a question asked before its reader came,
// that nobody who stays is forgotten, and that questions are shared.
func TestBarrierAnswersAreFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var clock, asked atomic.Int64
		b := &barrier{question: func() (int64, error) {
			asked.Add(1)
			rev := clock.Add(1)
			time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
			return rev, nil
		}}
		const readers, each = 50, 40
		var answers, cancelled atomic.Int64
		var wg sync.WaitGroup
		for range readers {
			wg.Go(func() {
				for range each {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(20))*time.Millisecond)
					came := clock.Load()
					rev, err := b.do(ctx)
					switch {
					case err == nil && rev <= came:
						t.Errorf("answer %d to a reader that came at %d", rev, came)
					case err == nil:
						answers.Add(1)
					case errors.Is(err, context.DeadlineExceeded):
						cancelled.Add(1)
					default:
						t.Error(err)
					}
					cancel()
					time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Second) // for a question that nobody waits for any more
		synctest.Wait()
		if n := answers.Load(); n == 0 || asked.Load() > n {
			t.Errorf("%d questions for %d answers: they are not shared", asked.Load(), n)
		}
		if cancelled.Load() == 0 {
			t.Error("nobody gave up: the test tests nothing")
		}
		if b.asking || b.next != nil {
			t.Error("the barrier is not at rest though nobody waits")
		}
		if _, err := b.do(t.Context()); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// TestBarrierUnderRace is the same with real parallelism and no time.
func TestBarrierUnderRace(t *testing.T) {
	var clock atomic.Int64
	b := &barrier{question: func() (int64, error) { runtime.Gosched(); return clock.Add(1), nil }}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 2000 {
				ctx, cancel := context.WithCancel(t.Context())
				if i%2 == 0 {
					go cancel()
				}
				came := clock.Load()
				rev, err := b.do(ctx)
				if err == nil && rev <= came || err != nil && i%2 != 0 {
					t.Errorf("answer %d, %v to a reader that came at %d", rev, err, came)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

// TestBarrierOneReaderDoesNotEndAnothersQuestion gives the question to a
// reader who leaves at once.
func TestBarrierOneReaderDoesNotEndAnothersQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &barrier{question: func() (int64, error) { time.Sleep(time.Second); return 7, nil }}
		ctx, cancel := context.WithCancel(t.Context())
		go b.do(ctx)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if rev, err := b.do(t.Context()); rev != 7 || err != nil {
					t.Errorf("%d, %v", rev, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		wg.Wait()
	})
}

// TestBarrierFailureReachesAll checks that a failed question fails all that
// waited for it, and none that came later.
func TestBarrierFailureReachesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		n := 0
		b := &barrier{question: func() (int64, error) {
			time.Sleep(time.Second)
			if n++; n == 1 {
				return 0, broken
			}
			return 9, nil
		}}
		var first, second error
		var wg sync.WaitGroup
		wg.Go(func() { _, first = b.do(t.Context()) })
		synctest.Wait()
		wg.Go(func() { _, second = b.do(t.Context()) })
		wg.Wait()
		if first != broken || second != nil {
			t.Errorf("errors: %v, %v", first, second)
		}
	})
}
