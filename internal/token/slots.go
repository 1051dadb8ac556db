package token

import (
	"context"
	"sync"
)

// slots bounds what is under way at once, in all and per host. Who waits for
// a host takes no room from others.
type slots struct {
	all   chan struct{}
	limit int // per host

	mu    sync.Mutex
	hosts map[string]*hostSlots // of those that somebody uses or waits for
}

type hostSlots struct {
	taken chan struct{}
	users int // who hold or wait for a slot
}

func newSlots(all, perHost int) *slots {
	return &slots{all: make(chan struct{}, all), limit: perHost, hosts: map[string]*hostSlots{}}
}

// acquire waits for a slot for a host until ctx ends; ok tells whether there
// was one. release gives it back.
func (s *slots) acquire(ctx context.Context, host string) (release func(), ok bool) {
	s.mu.Lock()
	h := s.hosts[host]
	if h == nil {
		h = &hostSlots{taken: make(chan struct{}, s.limit)}
		s.hosts[host] = h
	}
	h.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if h.users--; h.users == 0 {
			delete(s.hosts, host)
		}
	}
	select {
	case h.taken <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, false
	}
	select {
	case s.all <- struct{}{}:
	case <-ctx.Done():
		<-h.taken
		leave()
		return nil, false
	}
	return func() {
		<-s.all
		<-h.taken
		leave()
	}, true
}
