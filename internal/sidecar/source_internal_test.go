package sidecar

import (
	"fmt"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// TestKeepIsBounded: of too many identities, the one that was not asked for
// the longest time goes.
func TestKeepIsBounded(t *testing.T) {
	var now time.Time
	s := &Source{TenantID: "t", TokenFile: "/none", Authority: publicCloud, Now: func() time.Time { now = now.Add(time.Second); return now }}
	get := func(id string) (azcore.TokenCredential, bool) {
		c, known, err := s.credential(id)
		if err != nil {
			t.Fatal(err)
		}
		return c, known
	}
	id := func(i int) string { return fmt.Sprintf("client-%d", i) }
	for i := range maxCredentials {
		c, _ := get(id(i))
		s.keep(id(i), c)
	}
	if _, known := get("CLIENT-0"); !known { // used again, in another case
		t.Fatal("the first is not known")
	}
	for i := range 1000 { // asked for, and never given a token
		get(fmt.Sprintf("nobody-%d", i))
	}
	c, _ := get("one-more")
	s.keep("one-more", c)
	if n := len(s.credentials); n != maxCredentials {
		t.Errorf("%d are kept, want %d", n, maxCredentials)
	}
	for name, want := range map[string]bool{id(0): true, id(1): false, id(2): true, "one-more": true} {
		if _, known := get(name); known != want {
			t.Errorf("%s is known: %v, want %v", name, known, want)
		}
	}
	again, _ := get(id(2))
	s.keep(id(2), c)
	if kept, _ := get(id(2)); kept != again {
		t.Error("a credential with its tokens was replaced")
	}
}
