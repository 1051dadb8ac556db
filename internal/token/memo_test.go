package token

import (
	"fmt"
	"sync"
	"testing"
)

func (m *memo[V]) size() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.young) + len(m.old)
}

func slotOf(t *testing.T, raw string) (memoKey, string) {
	t.Helper()
	key, signed, ok := memoSlot(raw)
	if !ok {
		t.Fatalf("%q has no slot", raw)
	}
	return key, signed
}

func TestMemoFindsOnlyTheSameToken(t *testing.T) {
	var m memo[int]
	key, signed := slotOf(t, "head.body.signature")
	m.put(key, signed, 7, 10)
	if v, ok := m.get(key, signed, 10); !ok || v != 7 {
		t.Fatal("not found")
	}
	for _, other := range []string{"head.body.signaturf", "head.bodz.signature", "heae.body.signature", "head.body.", ".signature", "head.signature"} {
		key, signed := slotOf(t, other)
		if _, ok := m.get(key, signed, 10); ok {
			t.Errorf("%q is taken for another", other)
		}
	}
}

func TestMemoIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	var m memo[int]
	const limit = 100
	hotKey, hot := slotOf(t, "hot.token.signature")
	m.put(hotKey, hot, -1, limit)
	for i := range 50 * limit {
		key, signed := slotOf(t, fmt.Sprintf("a.b.%d", i))
		m.put(key, signed, i, limit)
		// A second reader of tokens that are being forgotten.
		if old, signed := slotOf(t, fmt.Sprintf("a.b.%d", i-limit/2)); i%3 == 0 {
			m.get(old, signed, limit)
		}
		if i%(limit/4) == 0 {
			if v, ok := m.get(hotKey, hot, limit); !ok || v != -1 {
				t.Fatalf("what is in use was forgotten after %d", i)
			}
		}
		if n := m.size(); n > limit {
			t.Fatalf("%d tokens are remembered, limit %d", n, limit)
		}
	}
}

func TestMemoDoesNotKeepLongTokens(t *testing.T) {
	if _, _, ok := memoSlot("a.b." + string(make([]byte, 705))); ok {
		t.Error("a long signature has a slot")
	}
	if _, _, ok := memoSlot("a." + string(make([]byte, maxMemoToken)) + ".c"); ok {
		t.Error("a long token has a slot")
	}
	if _, _, ok := memoSlot("no dot"); ok {
		t.Error("no token has a slot")
	}
}

func TestMemoUnderConcurrency(t *testing.T) {
	var m memo[int]
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				n := (i*7 + g) % 64
				key, signed, _ := memoSlot(fmt.Sprintf("a.b.%d", n))
				if v, ok := m.get(key, signed, 32); ok && v != n {
					t.Errorf("%d for %d", v, n)
				}
				m.put(key, signed, n, 32)
			}
		})
	}
	wg.Wait()
}
