package rbac

import (
	"regexp"
	"strings"
	"testing"
)

// naiveMatch says the same as matchAction through a regular expression.
func naiveMatch(pattern, action string) bool {
	parts := strings.Split(pattern, "*")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(strings.ToLower(p))
	}
	return regexp.MustCompile(`(?s)\A` + strings.Join(parts, ".*") + `\z`).MatchString(strings.ToLower(action))
}

func FuzzMatchAction(f *testing.F) {
	for _, s := range [][2]string{
		{"*", ""}, {"", ""}, {"", "a"}, {"*/read", "A/B/Read"}, {"*/read", "read"}, {"a/*/read", "a/read"}, {"a/*/read", "a//read"},
		{"a*b*c", "aXbXbXc"}, {"**", "x"}, {"*a", "aaab"}, {"microsoft.keyvault/vaults/*", "Microsoft.KeyVault/vaults/secrets/delete"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, action string) {
		for _, s := range []string{pattern, action} {
			for i := range len(s) {
				if s[i] < ' ' || s[i] > '~' {
					t.Skip("actions are printable ASCII")
				}
			}
		}
		if got, want := matchAction(strings.ToLower(pattern), action), naiveMatch(pattern, action); got != want {
			t.Errorf("matchAction(%q, %q) = %v", pattern, action, got)
		}
	})
}

// The matcher is given patterns of ours and actions of the planes, but a
// pattern of many stars must not take exponential time either.
func TestMatchActionIsLinearInStars(t *testing.T) {
	if matchAction(strings.Repeat("a*", 50)+"b", strings.Repeat("a", 5000)) {
		t.Error("matched")
	}
}

func FuzzCovers(f *testing.F) {
	f.Add("/subscriptions/s", "/SUBSCRIPTIONS/S/resourceGroups/g")
	f.Add("/", "/x")
	f.Add("/a", "/ab")
	f.Fuzz(func(t *testing.T, scope, object string) {
		if !validScope(scope) || !validScope(object) {
			t.Skip()
		}
		// Naively: the scope's segments are the first of the object's.
		want := true
		if scope != "/" {
			s, o := strings.Split(strings.ToLower(scope), "/"), strings.Split(strings.ToLower(object), "/")
			want = len(o) >= len(s)
			for i := 0; want && i < len(s); i++ {
				want = s[i] == o[i]
			}
		}
		if got := covers(scopeKey(scope), object); got != want {
			t.Errorf("covers(%q, %q) = %v", scope, object, got)
		}
	})
}
