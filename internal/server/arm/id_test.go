package arm

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podkey/podkey/internal/fault"
)

const (
	testSub   = "/subscriptions/5a9c0b7e-1111-4222-8333-444455556666"
	testGroup = testSub + "/resourceGroups/Rg-1"
	testVault = testGroup + "/providers/Microsoft.KeyVault/vaults/Kv1"
)

// parts is what a test compares of an ID.
type parts struct {
	Type, Name, Sub, Group, Parent, Scope string
	Item                                  bool
	Level                                 Level
}

func partsOf(id ID) parts {
	return parts{id.Type(), id.Name(), id.Subscription(), id.Group(), id.Parent().String(), id.Scope().String(), id.Item(), id.Level()}
}

func TestParseID(t *testing.T) {
	sub := strings.TrimPrefix(testSub, "/subscriptions/")
	for in, want := range map[string]parts{
		"/":                                      {"", "", "", "", "/", "/", true, AtTenant},
		"/tenants":                               {"/tenants", "", "", "", "/", "/tenants", false, AtResource},
		"/subscriptions":                         {"/subscriptions", "", "", "", "/", "/subscriptions", false, AtResource},
		testSub:                                  {"/subscriptions", sub, sub, "", "/", testSub, true, AtSubscription},
		testSub + "/resourcegroups":              {"/subscriptions/resourcegroups", "", sub, "", testSub, testSub + "/resourcegroups", false, AtResource},
		testGroup:                                {"/subscriptions/resourceGroups", "Rg-1", sub, "Rg-1", testSub, testGroup, true, AtGroup},
		testSub + "/providers":                   {"/subscriptions/providers", "", sub, "", testSub, testSub + "/providers", false, AtResource},
		testSub + "/providers/A.B":               {"/subscriptions/providers", "A.B", sub, "", testSub, testSub, true, AtSubscription},
		testSub + "/providers/A.B/c":             {"A.B/c", "", sub, "", testSub, testSub, false, AtSubscription},
		testVault:                                {"Microsoft.KeyVault/vaults", "Kv1", sub, "Rg-1", testGroup, testGroup, true, AtGroup},
		testVault + "/secrets/x":                 {"Microsoft.KeyVault/vaults/secrets", "x", sub, "Rg-1", testVault, testGroup, true, AtGroup},
		testVault + "/secrets":                   {"Microsoft.KeyVault/vaults/secrets", "", sub, "Rg-1", testVault, testGroup, false, AtGroup},
		testVault + "/providers/A.B/c/d":         {"A.B/c", "d", sub, "Rg-1", testVault, testVault, true, AtResource},
		testVault + "/secrets/x/providers/A.B/c": {"A.B/c", "", sub, "Rg-1", testVault + "/secrets/x", testVault + "/secrets/x", false, AtResource},
		"/providers/A.B/c/d":                     {"A.B/c", "d", "", "", "/", "/", true, AtTenant},
		"/providers/A.B":                         {"/providers", "A.B", "", "", "/", "/", true, AtTenant},
		// A group that is called providers, and a resource that is.
		testSub + "/resourceGroups/providers/providers/A.B/c/providers": {"A.B/c", "providers", sub, "providers", testSub + "/resourceGroups/providers", testSub + "/resourceGroups/providers", true, AtGroup},
		// Another namespace's types never pass for those of the first chain.
		"/providers/Microsoft.Resources/subscriptions/s": {"Microsoft.Resources/subscriptions", "s", "", "", "/", "/", true, AtTenant},
		"/Microsoft.KeyVault/x/vaults/v":                 {"/Microsoft.KeyVault/vaults", "v", "", "", "/Microsoft.KeyVault/x", "/Microsoft.KeyVault/x/vaults/v", true, AtResource},
	} {
		id, err := ParseID(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if diff := cmp.Diff(want, partsOf(id)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
		if id.String() != in {
			t.Errorf("%s became %s", in, id)
		}
	}
}

func TestParseIDRefuses(t *testing.T) {
	for _, in := range []string{
		"", "x", "subscriptions/x", "//", "/a//b", "/a/", "/a/./b", "/a/../b", "/a/b c /d", "/a/ b", "/a/b\x00", "/a/b\n",
		"/a/b%2fc", "/a/b\\c", "/a/b?c", "/a/b#c", "/a/ü", "/a/\u212a", "/a/<b>", "/a/b&c", "/a/b:c", "/a/b*", `/a/"b"`,
		"/providers/A/providers/B", "/providers/A/providers/B/c/d",
		"/a/" + strings.Repeat("x", maxIDSegment+1), strings.Repeat("/a", maxIDSegments+1), "/" + strings.Repeat("x", maxIDLength),
	} {
		if id, err := ParseID(in); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, %v", in, id, err)
		}
	}
}

func TestParsePathRefusesEncodedSlashes(t *testing.T) {
	for _, in := range []string{
		testGroup + "/providers/Microsoft.KeyVault/vaults/a%2Fproviders%2Fb", "/a/b%2fc", "/%2e%2e/b", "/a%00/b", "/a/%zz", "/a/b%5cc", "/a/%c3%bc",
	} {
		if id, err := parsePath(in); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, %v", in, id, err)
		}
	}
	id, err := parsePath(testSub + "/providers/Microsoft.KeyVault/locations/West%20Europe/deletedVaults/v")
	if err != nil || id.NameOf("LOCATIONS") != "West Europe" || id.NameOf("deletedvaults") != "v" {
		t.Errorf("%v %v", id, err)
	}
}

var segment = rapid.OneOf(
	rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._()~-]{0,12}`),
	rapid.SampledFrom([]string{"providers", "Providers", "subscriptions", "resourceGroups", "resourcegroups", "vaults"}),
)

// TestIDProperties: what parses is written back the same; keys do not depend
// on case; parents lead to the root.
func TestIDProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		segs := rapid.SliceOfN(segment, 1, 12).Draw(t, "segments")
		s := "/" + strings.Join(segs, "/")
		id, err := ParseID(s)
		if err != nil {
			return
		}
		checkID(t, s, id)
		upper, err := ParseID(strings.ToUpper(s))
		if err != nil || upper.Key() != id.Key() || upper.Level() != id.Level() || upper.Item() != id.Item() {
			t.Fatalf("upper case: %v %v", upper, err)
		}
	})
}

type fataler interface{ Fatalf(string, ...any) }

func checkID(t fataler, s string, id ID) {
	if !strings.EqualFold(id.String(), s) {
		t.Fatalf("%q became %q", s, id.String())
	}
	if same, err := ParseID(id.String()); err != nil || same.String() != id.String() {
		t.Fatalf("%q became %q: %v", id.String(), same, err)
	}
	again, err := ParseID(id.Key())
	if err != nil || again.Key() != id.Key() {
		t.Fatalf("key %q: %v %v", id.Key(), again, err)
	}
	for up, n := id, 0; !up.Root(); n++ {
		next := up.Parent()
		if next.String() == up.String() || n > 2*maxIDSegments {
			t.Fatalf("%q: the parent of %q is %q", s, up, next)
		}
		if !strings.HasPrefix(up.String(), strings.TrimSuffix(next.String(), "/")) || !strings.HasPrefix(up.Key(), next.under()) {
			t.Fatalf("%q: %q is not below its parent %q", s, up, next)
		}
		if _, err := ParseID(next.String()); err != nil {
			t.Fatalf("%q: parent %q: %v", s, next, err)
		}
		up = next
	}
	if !strings.HasPrefix(id.String(), strings.TrimSuffix(id.Scope().String(), "/")) {
		t.Fatalf("%q has the scope %q", s, id.Scope())
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"/", testVault, testVault + "/providers/Microsoft.Authorization/roleAssignments/x", "/providers/A/b", "/a%2fb", "//", "/providers/A/providers/B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil {
			checkID(t, s, id)
		} else if _, ok := fault.As(err); !ok {
			t.Fatalf("%q: %v is not a fault", s, err)
		}
		if id, err := parsePath(s); err == nil {
			checkID(t, id.String(), id)
		}
	})
}
