package webhook

import (
	"context"
	"net"
	"net/http"
	"slices"
	"testing"
)

// closable is a connection that tells whether it was closed.
type closable struct {
	net.Conn
	closed bool
}

func (c *closable) Close() error {
	c.closed = true
	return nil
}

// Who did something last stays longest, however old the connection is; who is
// being answered stays; and where all are, it is the newcomer that goes.
func TestWhoGoesAtTheLimit(t *testing.T) {
	n := newIntake(3)
	conns := make([]*closable, 6)
	for i := range conns {
		conns[i] = &closable{}
	}
	gone := func(want ...int) {
		t.Helper()
		var got []int
		for i, c := range conns {
			if c.closed {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("closed are %v, not %v", got, want)
		}
	}
	in := func(i int) context.Context { return context.WithValue(t.Context(), connKey{}, net.Conn(conns[i])) }

	for i := range 3 {
		n.state(conns[i], http.StateNew)
	}
	n.state(conns[0], http.StateActive)
	n.state(conns[0], http.StateIdle)
	n.state(conns[3], http.StateNew)
	gone(1)

	for _, i := range []int{0, 2, 3} {
		n.arrived(in(i))
	}
	n.state(conns[4], http.StateNew)
	gone(1, 4)

	n.set(in(3), false) // its answer is there, and it does not take it
	n.state(conns[5], http.StateNew)
	gone(1, 3, 4)

	n.state(conns[0], http.StateClosed)
	if len(n.conns) != 2 {
		t.Errorf("%d are known, not 2", len(n.conns))
	}
}

// The memory of an answer is used again, unless there is too much of it.
func TestMemoryOfAnswers(t *testing.T) {
	var a answers
	again := false
	for range 100 { // a pool may lose some
		a.put(make([]byte, 10, 1000))
		again = again || cap(a.get()) == 1000
	}
	if !again {
		t.Error("none was kept")
	}
	for range 100 {
		a.put(make([]byte, maxKept+1))
		if cap(a.get()) > maxKept {
			t.Fatal("a large one was kept")
		}
	}
}
