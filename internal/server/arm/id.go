package arm

import (
	"net/url"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/text"
)

// Limits of a path, in bytes and segments. Azure has 24 KiB and no fixed
// depth; no id of a resource comes near these.
const (
	maxIDLength   = 2048
	maxIDSegment  = 260
	maxIDSegments = 40
)

// ID is a parsed path of the management API: the id of a resource, or of a
// collection (or action) below one. The zero value is the tenant root "/".
//
// An id is a series of chains. The first has no namespace and leads to a
// subscription or resource group; each "/providers/{namespace}" begins
// another, whose resource lies in, or extends, what the id names up to there:
//
//	/subscriptions/s/resourceGroups/g                  chain 1
//	  /providers/Microsoft.KeyVault/vaults/v           chain 2
//	    /providers/Microsoft.Authorization/roleAssignments/a   chain 3, extends the vault
//
// In a chain, types and names alternate; a last type without a name makes it
// a collection. Letters keep their case, but for the word "providers" itself,
// which is written small; [ID.Key] is for comparing.
type ID struct {
	chains []chain
}

// chain is one series of types and names. len(types)-len(names) is 0 for an
// item and 1 for a collection. A chain with a namespace and no types names
// the provider itself.
type chain struct {
	namespace    string // "" in the first chain
	types, names []string
}

// ParseID parses an id as it stands in a body, or a path whose percent
// encoding was removed. It must begin with a slash and have no empty segment.
// Segments hold printable ASCII without the characters that Azure refuses in
// paths, so that lower-casing is the whole of comparing.
func ParseID(s string) (ID, error) {
	if len(s) > maxIDLength || s == "" || s[0] != '/' {
		return ID{}, badID(s)
	}
	if s == "/" {
		return ID{}, nil
	}
	return parseSegments(strings.Split(s[1:], "/"))
}

// parsePath parses a cleaned request path in its escaped form. A segment
// with an encoded slash is refused: it would be one segment here and two
// segments in the id that is authorised.
func parsePath(escaped string) (ID, error) {
	if escaped == "/" {
		return ID{}, nil
	}
	if len(escaped) > 3*maxIDLength || !strings.HasPrefix(escaped, "/") {
		return ID{}, badID(escaped)
	}
	segments := strings.Split(escaped[1:], "/")
	for i, seg := range segments {
		plain, err := url.PathUnescape(seg)
		if err != nil {
			return ID{}, badID(escaped)
		}
		segments[i] = plain
	}
	return parseSegments(segments)
}

func parseSegments(segs []string) (ID, error) {
	if len(segs) > maxIDSegments {
		return ID{}, badID(strings.Join(segs, "/"))
	}
	for _, s := range segs {
		if !validSegment(s) {
			return ID{}, badID(s)
		}
	}
	id := ID{chains: []chain{{}}}
	for i := 0; i < len(segs); i += 2 {
		cur := &id.chains[len(id.chains)-1]
		last := i+1 == len(segs)
		switch {
		case strings.EqualFold(segs[i], "providers") && !last:
			if cur.namespace != "" && len(cur.types) == 0 {
				return ID{}, badID(strings.Join(segs, "/")) // providers/A/providers/B: of what?
			}
			id.chains = append(id.chains, chain{namespace: segs[i+1]})
		case last:
			cur.types = append(cur.types, segs[i])
		default:
			cur.types = append(cur.types, segs[i])
			cur.names = append(cur.names, segs[i+1])
		}
	}
	return id, nil
}

// validSegment reports whether s may be a segment of an id.
func validSegment(s string) bool {
	if s == "" || len(s) > maxIDSegment || s == "." || s == ".." || s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || strings.IndexByte(`%/\?#<>*&:"|`, c) >= 0 {
			return false
		}
	}
	return true
}

func badID(s string) error {
	return fault.BadRequest("InvalidRequestUri", "The path or resource id '%s' is malformed.", clip(s))
}

// maxShown is how many bytes of a text from a request a message repeats.
const maxShown = 120

// clip makes text from a request fit for a message.
func clip(s string) string { return text.Clip(s, maxShown) }

// String is the id with the letters of types and names as they were given.
func (id ID) String() string {
	var b strings.Builder
	for _, c := range id.chains {
		if c.namespace != "" {
			b.WriteString("/providers/")
			b.WriteString(c.namespace)
		}
		for i, t := range c.types {
			b.WriteByte('/')
			b.WriteString(t)
			if i < len(c.names) {
				b.WriteByte('/')
				b.WriteString(c.names[i])
			}
		}
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// Key is the id in lower case: equal for ids that mean the same.
func (id ID) Key() string { return strings.ToLower(id.String()) }

func (id ID) last() chain {
	if len(id.chains) == 0 {
		return chain{}
	}
	return id.chains[len(id.chains)-1]
}

// Root reports whether the id is the tenant root.
func (id ID) Root() bool {
	return len(id.chains) <= 1 && len(id.last().types) == 0
}

// Item reports whether the id names one object, not a collection or action.
func (id ID) Item() bool {
	c := id.last()
	return len(c.types) == len(c.names)
}

// Type is the full type of what the id names, as it was written: with its
// namespace ("Microsoft.KeyVault/vaults/secrets"), or, in the first chain,
// with a leading slash instead ("/subscriptions/resourceGroups"). The slash
// keeps the two apart: no path through another namespace, such as
// /providers/Microsoft.Resources/subscriptions/s, is of the type of a
// subscription. A provider itself is of the type ".../providers".
func (id ID) Type() string {
	c := id.last()
	if c.namespace != "" && len(c.types) == 0 {
		return id.Parent().Type() + "/providers"
	}
	if len(c.types) == 0 {
		return ""
	}
	return c.namespace + "/" + strings.Join(c.types, "/")
}

// Name is the last name in the id; empty for a collection. For a provider it
// is the namespace.
func (id ID) Name() string {
	c := id.last()
	switch {
	case c.namespace != "" && len(c.types) == 0:
		return c.namespace
	case len(c.names) == 0 || !id.Item():
		return ""
	}
	return c.names[len(c.names)-1]
}

// NameOf is the name that follows type t in the last chain, in any case of
// t: of .../locations/l/deletedVaults/v, NameOf("locations") is "l".
func (id ID) NameOf(t string) string {
	c := id.last()
	for i, have := range c.types {
		if i < len(c.names) && strings.EqualFold(have, t) {
			return c.names[i]
		}
	}
	return ""
}

// Parent is the id one level up: of a collection or child, what it belongs
// to; of a chain's first item, what the chain lies in or extends. The parent
// of the root is the root.
func (id ID) Parent() ID {
	if id.Root() {
		return ID{}
	}
	n := len(id.chains)
	up := ID{chains: append([]chain(nil), id.chains...)}
	c := &up.chains[n-1]
	switch k := len(c.types); {
	case k == 0: // a provider itself
		up.chains = up.chains[:n-1]
	case len(c.names) == k:
		c.types, c.names = c.types[:k-1:k-1], c.names[:k-1:k-1]
	default:
		c.types = c.types[: k-1 : k-1]
	}
	if len(c.types) == 0 && n > 1 && len(up.chains) == n {
		up.chains = up.chains[:n-1]
	}
	return up
}

// Scope is what the last chain lies in or extends; of an id with only the
// first chain, the id itself.
func (id ID) Scope() ID {
	if len(id.chains) <= 1 {
		return id
	}
	n := len(id.chains) - 1
	return ID{chains: id.chains[:n:n]}
}

// Subscription is the id's subscription in lower case, or empty.
func (id ID) Subscription() string {
	if len(id.chains) == 0 {
		return ""
	}
	c := id.chains[0]
	if len(c.names) == 0 || !strings.EqualFold(c.types[0], "subscriptions") {
		return ""
	}
	return strings.ToLower(c.names[0])
}

// Group is the name of the id's resource group as written, or empty.
func (id ID) Group() string {
	if id.Subscription() == "" {
		return ""
	}
	c := id.chains[0]
	if len(c.names) < 2 || !strings.EqualFold(c.types[1], "resourceGroups") {
		return ""
	}
	return c.names[1]
}

// namespace is the namespace of the last chain, or empty.
func (id ID) namespace() string { return id.last().namespace }

// Level says where the last chain of an id lies.
type Level uint8

// The levels, as bits of a set.
const (
	AtTenant       Level = 1 << iota // /providers/...
	AtSubscription                   // /subscriptions/s/providers/...
	AtGroup                          // /subscriptions/s/resourceGroups/g/providers/...
	AtResource                       // on another resource, or a management group
)

// AtAny is every level: the type extends whatever it is put on.
const AtAny = AtTenant | AtSubscription | AtGroup | AtResource

// Level is the level of the id's last chain.
func (id ID) Level() Level {
	s := id.Scope()
	switch {
	case s.Root():
		return AtTenant
	case len(s.chains) > 1 || !s.Item():
		return AtResource
	case strings.EqualFold(s.Type(), typeSubscription):
		return AtSubscription
	case strings.EqualFold(s.Type(), typeGroup):
		return AtGroup
	}
	return AtResource
}

// under is the prefix of the keys of everything below the id.
func (id ID) under() string {
	if id.Root() {
		return "/"
	}
	return id.Key() + "/"
}
