package token

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"
)

// TestRotationSchedule runs one row of keys through random gaps between looks
// at the clock, on several servers whose clocks differ, and checks the two
// promises: a key is published for the overlap before it signs (but for the
// first), and as long as anything that it signed can be accepted.
func TestRotationSchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hours := func(name string, lo, hi int) time.Duration {
			return time.Duration(rapid.IntRange(lo, hi).Draw(t, name)) * time.Hour
		}
		lifetime := hours("lifetime", 1, 24*200)
		overlap := min(hours("overlap", 1, 24*10), lifetime/2)
		skew := [2]time.Duration{0, time.Duration(rapid.IntRange(-240, 240).Draw(t, "skew")) * time.Second}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		server := 0
		k := &Keys{o: Options{Lifetime: lifetime, Overlap: overlap, Now: func() time.Time { return now.Add(skew[server]) }}}

		var row []*signingKey
		since := map[string]time.Time{}
		last := map[string]time.Time{}
		for i := range rapid.IntRange(1, 60).Draw(t, "looks") {
			server = rapid.IntRange(0, 1).Draw(t, "server")
			r := k.due(row, Tenant, jose.ES256)
			for _, gone := range r.remove {
				if end, signed := last[gone.id]; signed && now.Before(end.Add(MaxLifetime+Leeway)) {
					t.Fatalf("key %s is removed %v after it signed", gone.id, now.Sub(end))
				}
				row = slices.DeleteFunc(row, func(k *signingKey) bool { return k == gone })
			}
			if r.create {
				id := strconv.Itoa(i)
				row = append(row, &signingKey{id: id, signFrom: r.signFrom})
				sortRow(row)
				since[id] = now
			}
			if again := k.due(row, Tenant, jose.ES256); !again.nothing() {
				t.Fatalf("not settled: %+v", again)
			}
			// Both servers sign.
			for server = range 2 {
				s := signer(row, k.o.Now())
				if s == nil {
					t.Fatal("no key signs")
				}
				if _, signed := last[s.id]; !signed && len(since) > 1 && s.id != "0" {
					if waited := now.Sub(since[s.id]); waited < overlap-8*time.Minute {
						t.Fatalf("key %s signs %v after it was published", s.id, waited)
					}
				}
				last[s.id] = now
			}
			if len(row) > 4+int((MaxLifetime+2*time.Hour)/lifetime) {
				t.Fatalf("%d keys are published", len(row))
			}
			now = now.Add(time.Duration(rapid.IntRange(1, 60*24*30).Draw(t, "gap")) * time.Minute)
		}
	})
}
