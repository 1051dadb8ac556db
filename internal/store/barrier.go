package store

import (
	"context"
	"sync"
)

// barrier lets readers that wait at the same time share one question to etcd.
// A reader must not use an answer to a question that was asked before it
// arrived: what it must see may have been written in between. So those that
// arrive while a question is under way share the next one.
type barrier struct {
	mu      sync.Mutex
	running bool
	next    *round
}

type round struct {
	done    chan struct{}
	lead    chan struct{} // holds one token for the waiter that is to ask
	waiters int
	rev     int64
	err     error
}

func (b *barrier) do(ctx context.Context, ask func(context.Context) (int64, error)) (int64, error) {
	b.mu.Lock()
	var r *round
	if b.running {
		if b.next == nil {
			b.next = &round{done: make(chan struct{}), lead: make(chan struct{}, 1)}
		}
		r = b.next
		r.waiters++
		b.mu.Unlock()
		select {
		case <-r.done:
			return r.rev, r.err
		case <-r.lead:
		case <-ctx.Done():
			b.resign(r)
			return 0, ctx.Err()
		}
	} else {
		b.running = true
		r = &round{done: make(chan struct{})}
		b.mu.Unlock()
	}
	// The question outlives its asker: others wait for the answer.
	r.rev, r.err = ask(context.WithoutCancel(ctx))
	close(r.done)
	b.pass()
	return r.rev, r.err
}

// pass hands the lead to one of those who wait for the next round.
func (b *barrier) pass() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.passLocked()
}

func (b *barrier) passLocked() {
	if b.next == nil {
		b.running = false
		return
	}
	b.next.lead <- struct{}{}
	b.next = nil
}

// resign takes a reader that gave up out of its round. If it had been handed
// the lead in the same moment, another waiter gets it.
func (b *barrier) resign(r *round) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.waiters--
	if b.next == r {
		if r.waiters == 0 {
			b.next = nil
		}
		return
	}
	select {
	case <-r.lead:
		if r.waiters > 0 {
			r.lead <- struct{}{}
		} else {
			b.passLocked()
		}
	default:
	}
}
