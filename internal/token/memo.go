package token

import (
	"crypto/sha256"
	"strings"
	"sync"
)

// memo remembers tokens whose signature was found right, so that the next
// sight of the same token costs no public-key operation.
//
// A token is found by the SHA-256 of its signature, and is the same only if
// the part that is signed is the same byte for byte as well. That is as exact
// as a hash of the whole and several times faster; and what is kept, signed
// part and hash, is not a usable token. The comparison need not be constant
// in time: only who knows the signature gets that far.
//
// There are two generations. When the younger is full it becomes the older,
// and what was in that is forgotten; a token that is asked for moves to the
// younger. So eviction costs nothing and what is in use stays.
type memo[V any] struct {
	mu         sync.RWMutex
	young, old map[memoKey]memoEntry[V]
}

type memoKey = [sha256.Size]byte

type memoEntry[V any] struct {
	signed string
	value  V
}

const (
	defaultMemo  = 10_000
	maxMemoToken = 4 << 10 // longer tokens are not remembered, so that memory is bounded too
)

// memoSlot says where a token belongs. ok is false for text that is not to be
// remembered.
func memoSlot(raw string) (key memoKey, signed string, ok bool) {
	i := strings.LastIndexByte(raw, '.')
	if i < 0 || len(raw) > maxMemoToken {
		return key, "", false
	}
	var room [704]byte // the signature of a 4096-bit RSA key; on the stack
	if len(raw)-i-1 > len(room) {
		return key, "", false
	}
	n := copy(room[:], raw[i+1:])
	return sha256.Sum256(room[:n]), raw[:i], true
}

func (m *memo[V]) get(key memoKey, signed string, limit int) (value V, ok bool) {
	m.mu.RLock()
	e, ok := m.young[key]
	young := ok
	if !ok {
		e, ok = m.old[key]
	}
	m.mu.RUnlock()
	if !ok || e.signed != signed {
		return value, false
	}
	if !young {
		m.mu.Lock()
		m.add(key, e, limit)
		m.mu.Unlock()
	}
	return e.value, true
}

// put remembers a token; there are never more than limit.
func (m *memo[V]) put(key memoKey, signed string, value V, limit int) {
	// A copy: signed is a part of the token's text and would keep all of it.
	e := memoEntry[V]{strings.Clone(signed), value}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(key, e, limit)
}

// add puts an entry into the younger generation. mu is held.
func (m *memo[V]) add(key memoKey, e memoEntry[V], limit int) {
	if m.young == nil || len(m.young) >= max(limit/2, 1) {
		m.old, m.young = m.young, make(map[memoKey]memoEntry[V])
	}
	m.young[key] = e
}
