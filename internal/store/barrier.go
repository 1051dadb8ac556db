package store

import (
	"context"
	"sync"
)

// barrier lets readers that wait at the same time share one question to etcd.
// A reader must not use the answer to a question that was asked before it
// came: what it must see may have been written in between. So those that come
// while a question is under way share the next one.
//
// The question is asked by a goroutine of the barrier, which lives as long as
// there are readers to answer, so that no reader's end disturbs the others.
type barrier struct {
	question func() (int64, error)

	mu     sync.Mutex
	asking bool
	next   *round // those who wait for the next question, or nil
}

// round is a question and its answer, which is there once done is closed.
type round struct {
	done chan struct{}
	rev  int64
	err  error
}

// do returns the answer to a question that was asked after the call began.
func (b *barrier) do(ctx context.Context) (int64, error) {
	b.mu.Lock()
	if b.next == nil {
		b.next = &round{done: make(chan struct{})}
	}
	r := b.next
	if !b.asking {
		b.asking = true
		go b.answer()
	}
	b.mu.Unlock()
	select {
	case <-r.done:
		return r.rev, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// answer asks the question for one round after the other until nobody waits.
func (b *barrier) answer() {
	for {
		b.mu.Lock()
		r := b.next
		b.next = nil
		if r == nil {
			b.asking = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		r.rev, r.err = b.question()
		close(r.done)
	}
}
